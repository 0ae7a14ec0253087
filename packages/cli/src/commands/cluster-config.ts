import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { type PushedConfig, unifiedDifference, type VirtualServerDefinition } from "@lockstep/core";
import { printable, systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { BeatWatch, demandServer, takeSnapshot } from "../cluster/look.ts";
import { findQueueFaults } from "../cluster/queue-check.ts";
import type { ClusterSnapshot } from "../cluster/snapshot.ts";
import { Finished, reportFailure } from "../failure.ts";
import { usage } from "../options.ts";
import { counted } from "../screen/format.ts";
import { printTable } from "../screen/table.ts";
import {
  addClusterOptions,
  type ClusterArguments,
  type ClusterSession,
  withCluster,
} from "./cluster-session.ts";

/** `lockstep cluster config push|diff|verify`: the configuration files of services, which each node has for itself. */
export function defineConfig(cluster: Command): void {
  const config = cluster
    .command("config")
    .description("configuration files of services, one copy on each node");
  addClusterOptions(
    config
      .command("push")
      .description("give every node this configuration, under the name it has there")
      .argument("<name>", "the virtual server")
      .argument("<file>", "the configuration"),
  )
    .option("--path <path>", "where it is on every node, absolute; needed the first time")
    .option("--no-wait", "do not wait until all nodes that are up have it")
    .option("--timeout <seconds>", "how long to wait", readSeconds, 30)
    .action((name: string, file: string, options: PushArguments) =>
      withCluster(options, (session) => push(session, name, file, options)),
    );
  addClusterOptions(
    config
      .command("diff")
      .description("what differs from the configuration that was pushed")
      .argument("<name>", "the virtual server")
      .argument("[file]", "compare this file, else the one of this node"),
  ).action((name: string, file: string | undefined, options: ClusterArguments) =>
    withCluster(options, (session) => showDifference(session, name, file)),
  );
  addClusterOptions(
    config
      .command("verify")
      .description("whether all nodes have the same configuration (exit status 3: no)")
      .argument("[name]", "the virtual server, else all"),
  ).action((name: string | undefined, options: ClusterArguments) =>
    withCluster(options, (session) => verify(session, name, options)),
  );
}

interface PushArguments extends ClusterArguments {
  readonly path?: string;
  readonly wait: boolean;
  readonly timeout: number;
}

const BYTES_MAX = 256 * 1024;
const LOOK_MS = 200;

function readSeconds(text: string): number {
  const seconds = /^[0-9]{1,6}(\.[0-9]{1,3})?$/.test(text) ? Number(text) : 0;
  if (seconds > 0) return seconds;
  throw usage("--timeout takes a number of seconds", "above 0, as 30 or 0.5", text);
}

async function push(
  session: ClusterSession,
  name: string,
  file: string,
  options: PushArguments,
): Promise<void> {
  const { api, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const path = pathOf(demandServer(snapshot.servers, name), options.path);
  const text = await readText(file);
  await demandFitting(snapshot, name, file, text);
  const pushed: PushedConfig = { path, hash: hashOf(text), text };
  // The text first: a definition that expects a hash which nobody can get would keep every node away.
  await documents.change(api.at(api.CONFIGS, name), () => pushed);
  await documents.change(api.at(api.SERVERS, name), (present) => {
    if (present === null) return demandServer([], name);
    return { ...present, config: { path, hash: pushed.hash } };
  });
  output.note(`${basename(file)} is pushed as ${path}, ${shorten(pushed.hash)}`);
  const states = options.wait
    ? await untilAllHave(session, snapshot, name, pushed.hash, options.timeout)
    : statesOf(snapshot, name, pushed.hash);
  output.document({ virtualServer: name, path, hash: pushed.hash, nodes: states });
  tellStates(session, states);
}

/** Where the file is on every node: its name stays what it was (S10). */
function pathOf({ name, config }: VirtualServerDefinition, given: string | undefined): string {
  if (given !== undefined && !given.startsWith("/"))
    throw usage("--path takes an absolute path", "/opt/app/JobService.toml", given);
  if (config === null && given === undefined)
    throw usage(
      `${name} has no configuration file yet`,
      "--path PATH",
      undefined,
      "Say where it is on every node.",
    );
  if (config !== null && given !== undefined && given !== config.path)
    throw usage(`the configuration of ${name} has its name already`, config.path, given);
  return config?.path ?? given ?? "";
}

async function readText(file: string): Promise<string> {
  try {
    const bytes = await readFile(file);
    if (bytes.length > BYTES_MAX)
      throw new Error(`it has ${bytes.length} bytes, at most ${BYTES_MAX} make sense`);
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `${file} cannot be read as a configuration`, {
      expected: "a text in UTF-8",
      found: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}

/**
 * A configuration of the job service must be sound and serve the virtual server's queue (S9); that of another service is
 * its own business. Throws SERVICE_CONFIG_INVALID, CONFIG_QUEUE_REFUSED.
 */
async function demandFitting(
  snapshot: ClusterSnapshot,
  name: string,
  file: string,
  text: string,
): Promise<void> {
  if (!/^\s*\[\[?\s*Job(?:Provider|ServiceDestination)\b/m.test(text)) return;
  const { configInvalid, parseServiceConfig } = await import("@lockstep/service");
  const { faults } = parseServiceConfig(text);
  if (faults.some(({ severity }) => severity === "error")) throw configInvalid(file, faults);
  const nodes = snapshot.members.map(({ node }) => node);
  const queueFaults = findQueueFaults(text, name, nodes);
  if (queueFaults.length === 0) return;
  throw new LockstepError("CONFIG_QUEUE_REFUSED", `${file} does not fit the virtual server ${name}`, {
    faults: queueFaults.map(({ line, problem }) => ({ where: `${basename(file)}:${line}`, problem })),
    hint: `A job service on a virtual server serves the queue of that name: Queue = "${name}".`,
  });
}

interface NodeState {
  readonly node: string;
  readonly hash: string | null;
  readonly state: "equal" | "differs" | "missing" | "unknown" | "down";
}

/** What each node said last of its copy. `expected` null: nothing was pushed, so the first one that is found counts. */
function statesOf(snapshot: ClusterSnapshot, name: string, expected: string | null): NodeState[] {
  const { members, reports, up } = snapshot;
  const hashes = members.map(({ node }) => reports.get(node)?.configHashes[name]);
  const wanted = expected ?? hashes.find((hash) => typeof hash === "string") ?? null;
  return members.map(({ node }, index) => {
    const hash = hashes[index];
    const state =
      hash === undefined ? "unknown" : hash === null ? "missing" : hash === wanted ? "equal" : "differs";
    // A node that is down brings itself in step before it can be a candidate again.
    return { node, hash: hash ?? null, state: up.has(node) || state === "equal" ? state : "down" };
  });
}

/** Throws CLUSTER_NOT_REACHED with the nodes that do not have it. */
async function untilAllHave(
  session: ClusterSession,
  snapshot: ClusterSnapshot,
  name: string,
  hash: string,
  timeoutSeconds: number,
): Promise<NodeState[]> {
  const beats = new BeatWatch(snapshot.cluster.lease.waitMs);
  const until = systemClock.monotonic() + timeoutSeconds * 1_000;
  for (;;) {
    const { found: reports } = await session.documents.reports();
    beats.see(reports.values(), systemClock.monotonic());
    const states = statesOf({ ...snapshot, reports }, name, hash);
    const missing = states.filter(({ state }) => state !== "equal" && state !== "down");
    if (missing.length === 0) return states;
    if (systemClock.monotonic() >= until)
      throw new LockstepError("CLUSTER_NOT_REACHED", `not every node has the configuration of ${name} yet`, {
        faults: missing.map(({ node, state, hash }) => ({
          where: node,
          problem: hash === null ? state : `${state}: ${shorten(hash)}`,
        })),
        hint: "What was pushed stands. lockstep cluster history says why a node did not take it.",
      });
    await systemClock.sleep(LOOK_MS, session.signal);
    session.signal.throwIfAborted();
  }
}

function tellStates({ output }: ClusterSession, states: readonly NodeState[]): void {
  printTable(
    output,
    [{ title: "node" }, { title: "configuration" }, { title: "hash" }],
    states.map(({ node, state, hash }) => [node, state, hash === null ? "" : shorten(hash)]),
  );
}

async function showDifference(
  session: ClusterSession,
  name: string,
  file: string | undefined,
): Promise<void> {
  const { api, config, documents, output } = session;
  const snapshot = await takeSnapshot(session);
  const definition = demandServer(snapshot.servers, name);
  const pushed = await documents.read(api.at(api.CONFIGS, name));
  if (pushed === null || definition.config === null)
    throw new LockstepError("NOT_FOUND", `no configuration of ${name} was ever pushed`, {
      hint: "lockstep cluster config push does that; verify compares the nodes without it.",
    });
  const path = file === undefined ? definition.config.path : resolve(file);
  const difference = unifiedDifference(pushed.text, await readText(path));
  const states = statesOf(snapshot, name, pushed.hash);
  output.document({ virtualServer: name, hash: pushed.hash, file: path, difference, nodes: states });
  if (difference.length > 0) {
    output.line(printable(`--- ${name}, as pushed`));
    output.line(printable(`+++ ${path}${file === undefined ? ` on ${config.name}` : ""}`));
    for (const line of difference) output.line(printable(line));
  } else output.note(`${path} is as it was pushed`);
  if (!output.json)
    for (const { node, state, hash } of states) output.note(`${node}: ${state}${hashText(hash)}`);
}

async function verify(
  session: ClusterSession,
  name: string | undefined,
  options: ClusterArguments,
): Promise<void> {
  const { output } = session;
  const snapshot = await takeSnapshot(session);
  const servers = name === undefined ? snapshot.servers : [demandServer(snapshot.servers, name)];
  const compared = servers
    .filter(({ config }) => config !== null)
    .map(({ name, config }) => ({
      virtualServer: name,
      path: config?.path ?? "",
      hash: config?.hash ?? null,
      nodes: statesOf(snapshot, name, config?.hash ?? null),
    }));
  const faults = compared.flatMap(({ virtualServer, nodes }) =>
    nodes
      .filter(({ state }) => state !== "equal")
      .map(({ node, state, hash }) => ({
        where: `${virtualServer} on ${node}`,
        problem: `${state}${hashText(hash)}`,
      })),
  );
  output.document({ equal: faults.length === 0, configurations: compared });
  printTable(
    output,
    [{ title: "virtual server" }, { title: "node" }, { title: "configuration" }, { title: "hash" }],
    compared.flatMap(({ virtualServer, nodes }) =>
      nodes.map(({ node, state, hash }) => [virtualServer, node, state, hash === null ? "" : shorten(hash)]),
    ),
  );
  if (faults.length === 0) {
    output.note(`${counted(compared.length, "configuration")}: equal on all nodes`);
    return;
  }
  const failure = new LockstepError("CONFIG_DIFFERS", "the nodes do not all have the same configuration", {
    faults,
    hint: "lockstep cluster config diff shows the lines, push makes all equal.",
  });
  // The document has been written already.
  throw new Finished(reportFailure(failure, { ...options, json: false, stdout: process.stdout }));
}

const hashOf = (text: string) => createHash("sha256").update(text, "utf8").digest("hex");
const SHOWN_DIGITS = 12;
const shorten = (hash: string) => hash.slice(0, SHOWN_DIGITS);
const hashText = (hash: string | null) => (hash === null ? "" : `, ${shorten(hash)}`);

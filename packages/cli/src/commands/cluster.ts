import type { Command } from "commander";
import { collect, usage, wholeNumber } from "../options.ts";
import { defineConfig } from "./cluster-config.ts";
import { defineDrill } from "./cluster-drill.ts";
import {
  addClusterOptions,
  addFollowOptions,
  type ClusterArguments,
  withCluster,
} from "./cluster-session.ts";
import { defineVirtualServer } from "./cluster-virtual-server.ts";

/** `lockstep cluster`: founds a cluster, looks at it, and moves what lives on it. */
export function define(command: Command): void {
  defineMembership(command);
  defineLooking(command);
  defineVirtualServer(command);
  defineConfig(command);
  defineMoving(command);
  defineDrill(command);
  defineNodes(command);
}

/** One of several words of an option. */
function choice<T extends string>(name: string, words: readonly T[]): (value: string) => T {
  return (value) => {
    const found = words.find((word) => word === value);
    if (found === undefined) throw usage(`${name} takes one of several words`, words.join(", "), value);
    return found;
  };
}

const examination = () => import("@lockstep/cluster/examination");

function defineMembership(command: Command): void {
  const init = command.command("init").description("found a cluster in the store, and make its key");
  addClusterOptions(init)
    .option("--name <name>", "name of the cluster (else the last part of the prefix)")
    .option(
      "--profile <profile>",
      "times of the lease: default or fast",
      choice("--profile", ["default", "fast"]),
    )
    .option("--time <term=value>", "one term of the lease, as waitMs=5000; repeatable", collect)
    .option("--vote <name[@node]>", "a member of the store, and the node it runs on; repeatable", collect)
    .option(
      "--config-policy <policy>",
      "block or warn: whether a node whose configuration differs may own",
      choice("--config-policy", ["block", "warn"]),
    )
    .option("--dry-run", "only prove the times and measure the store")
    .action(async (options) => {
      const { foundCluster } = await import("../cluster/found.ts");
      await withCluster(options, async (session) => foundCluster(session, await examination(), options));
    });
  const join = command
    .command("join")
    .description("make this machine a node of the cluster, if it is fit for it");
  addClusterOptions(join)
    .option("--force", "join although something is wrong")
    .option("--dry-run", "only look")
    .action(async (options) => {
      const { joinCluster } = await import("../cluster/membership.ts");
      await withCluster(options, async (session) => joinCluster(session, await examination(), options));
    });
  const set = command.command("set").description("change what holds for the whole cluster, while it runs");
  addClusterOptions(set)
    .option(
      "--profile <profile>",
      "times of the lease: default or fast",
      choice("--profile", ["default", "fast"]),
    )
    .option("--time <term=value>", "one term of the lease, as waitMs=5000; repeatable", collect)
    .option(
      "--config-policy <policy>",
      "block or warn: whether a node whose configuration differs may own",
      choice("--config-policy", ["block", "warn"]),
    )
    .option(
      "--quarantine <exits/minutes/out>",
      "so many exits in so many minutes keep a node out, as 3/60/120",
    )
    .option(
      "--vote <name[@node]>",
      "a member of the store, in place of all that are known; repeatable",
      collect,
    )
    .option("--dry-run", "only prove the times and measure the store")
    .action(async (options) => {
      const { setCluster } = await import("../cluster/cluster-set.ts");
      await withCluster(options, async (session) => setCluster(session, await examination(), options));
    });
  const leave = command.command("leave").description("take a node out of the cluster (else this one)");
  addClusterOptions(leave.argument("[node]")).action(async (node: string | undefined, options) => {
    const { leaveCluster } = await import("../cluster/membership.ts");
    await withCluster(options, (session) => leaveCluster(session, node));
  });
}

function defineLooking(command: Command): void {
  const status = command
    .command("status")
    .description("nodes, virtual servers, and what is wrong; exit 10 if anything is");
  addClusterOptions(status)
    .option("--watch [seconds]", "again and again (2)", (text) => wholeNumber("--watch", 1, 3600)(text))
    .action(async (options: ClusterArguments & { readonly watch?: number | true }) => {
      const { showStatus } = await import("../cluster/show.ts");
      const { watch } = options;
      const seconds = watch === true ? 2 : watch;
      await withCluster(options, (session) =>
        showStatus(session, seconds === undefined ? {} : { watch: seconds }),
      );
    });
  const check = command
    .command("check")
    .description("everything that nodes need, and what differs between them");
  addClusterOptions(check).action(async (options) => {
    const { checkCluster } = await import("../cluster/check.ts");
    await withCluster(options, async (session) => checkCluster(session, await examination()));
  });
  const history = command
    .command("history")
    .description("who saw what when, and why it moved: one timeline of all nodes");
  addClusterOptions(history)
    .option("--server <name>", "only of this virtual server")
    .option("--node <name>", "only what this node wrote down")
    .option("--since <time>", "as 90s, 15m, 2h, 3d", readAge)
    .option("--last <count>", "at most so many (100)", wholeNumber("--last", 1, 1_000_000))
    .option("--follow", "go on with what happens from now on")
    .action(async (options) => {
      const { showHistory } = await import("../cluster/show.ts");
      await withCluster(options, (session) => showHistory(session, options));
    });
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

function readAge(text: string): number {
  const [, count, unit] = /^([0-9]{1,6})([smhd])$/.exec(text) ?? [];
  if (count === undefined || unit === undefined || !(unit in UNIT_MS))
    throw usage("--since takes how long ago", "90s, 15m, 2h or 3d", text);
  return Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS];
}

function defineMoving(command: Command): void {
  const move = command.command("move").description("move a virtual server in order, and follow it");
  addFollowOptions(move.argument("<virtual-server>"))
    .option("--to <node>", "where to (else where it belongs)")
    .option("--dry-run", "only predict: target, reasons, steps, outage")
    .action(async (name: string, options) => {
      const { moveServer } = await import("../cluster/move.ts");
      await withCluster(options, (session) => moveServer(session, name, options));
    });
  const failover = command
    .command("failover")
    .description("take a virtual server over from an owner that is lost");
  addFollowOptions(failover.argument("<virtual-server>"))
    .option("--to <node>", "who takes it")
    .option("--any", "whoever can")
    .option("--yes", "do not ask")
    .action(async (name: string, options: ClusterArguments & FailoverArguments) => {
      if ((options.to === undefined) === (options.any !== true))
        throw usage("a failover needs to know who takes over", "--to NODE, or --any");
      const { failOver } = await import("../cluster/move.ts");
      await withCluster(options, (session) => failOver(session, name, options));
    });
}

interface FailoverArguments {
  readonly to?: string;
  readonly any?: boolean;
  readonly yes?: boolean;
  readonly timeout?: number;
  readonly wait: boolean;
}

function defineNodes(command: Command): void {
  const drain = command.command("drain").description("pause a node and move everything off it");
  addFollowOptions(drain.argument("<node>"))
    .option("--to <node>", "where everything goes (else each where it belongs)")
    .option("--force", "take offline what has nowhere to go")
    .action(async (node: string, options) => {
      const { drainNode } = await import("../cluster/drain.ts");
      await withCluster(options, (session) => drainNode(session, node, options));
    });
  const failbacks = ["no", "immediate", "policy"] as const;
  const resume = command.command("resume").description("a paused node takes virtual servers again");
  addFollowOptions(resume.argument("<node>"))
    .option(
      "--failback <how>",
      "what comes back now: no, immediate or policy",
      choice("--failback", failbacks),
      "no",
    )
    .action(async (node: string, options) => {
      const { resumeNode } = await import("../cluster/drain.ts");
      await withCluster(options, (session) => resumeNode(session, node, options));
    });
  const update = command
    .command("update")
    .description("roll an update through the cluster, node by node, without an outage");
  addClusterOptions(update)
    .requiredOption(
      "--each <command>",
      "what updates one node, run by a shell with LOCKSTEP_NODE set, as 'ssh root@$LOCKSTEP_NODE lockstep update /opt/app'",
    )
    .option(
      "--timeout <seconds>",
      "how long to wait for each move (300)",
      wholeNumber("--timeout", 1, 86_400),
    )
    .option("--restart", "begin anew, although an update was not done")
    .action(async (options) => {
      const { updateCluster } = await import("../cluster/update.ts");
      await withCluster(options, (session) => updateCluster(session, { ...options, wait: true }));
    });
  const release = command.command("release").description("let a node in again that dropped out too often");
  addClusterOptions(release.argument("<node>")).action(async (node: string, options) => {
    const { releaseNode } = await import("../cluster/drain.ts");
    await withCluster(options, (session) => releaseNode(session, node));
  });
}

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { listenForInterruption, signalExitStatus, systemClock } from "@lockstep/platform";
import { counted, formatBytes, formatCount, formatDuration } from "../packages/cli/src/screen/format.ts";
import { AgentWatch } from "./demo/agent-watch.ts";
import { compareInstallation, compareReleases, type Difference } from "./demo/comparison.ts";
import { observe } from "./demo/follower.ts";
import {
  describeModule,
  expectedFiles,
  type Machine,
  SERVER_ROLE,
  WORKSTATION_ROLE,
} from "./demo/product.ts";
import { Programs } from "./demo/programs.ts";
import { fetchPackage, type PublishedPackage, parseSpec } from "./demo/published-package.ts";
import { Screen } from "./demo/screen.ts";

// The demonstration: two real releases, a hub, a server and a workstation that follow by themselves. Everything is done
// by the `lockstep` command as a person would use it; what is claimed at the end is checked against the published files.
const FOLLOW_MS_MAX = 10 * 60_000;
const START_MS_MAX = 2 * 60_000;
const LOOK_MS = 100;

const USAGE = `usage: npm run demo -- [--from NAME@VERSION] [--to NAME@VERSION] [--keep]

  --from, --to   two published versions of one package (default next@16.4.5 and next@16.4.6)
  --keep         leave the directory of the demonstration for a closer look`;

interface Installation {
  readonly machine: Machine;
  readonly directory: string;
  readonly role: string;
}

const screen = new Screen();
const agents = new Map<Machine, AgentWatch>();
const checkout = resolve(import.meta.dirname, "..");
using interruption = listenForInterruption(process, undefined, () =>
  process.stderr.write("still cleaning up, one moment\n"),
);
const { signal } = interruption;

let parsed: { from: string; to: string; keep: boolean };
try {
  const { values } = parseArgs({
    options: {
      from: { type: "string", default: "next@16.4.5" },
      to: { type: "string", default: "next@16.4.6" },
      keep: { type: "boolean", default: false },
    },
  });
  parsed = values;
} catch (error) {
  fail(error, 2);
}
const from = parseSpec(parsed.from);
const to = parseSpec(parsed.to);
if (from === null || to === null || from.name !== to.name)
  fail(new Error(`${parsed.from} and ${parsed.to} are not two versions of one package`), 2);

const directory = await mkdtemp(join(tmpdir(), "lockstep-demo-"));
const programs = new Programs(checkout, directory, screen);
try {
  await demonstrate(from, to);
} catch (error) {
  screen.settle();
  if (signal.aborted) {
    console.error("\ninterrupted; cleaning up");
    process.exitCode = signalExitStatus(interruption.received() ?? "SIGINT");
  } else {
    console.error(`\nthe demonstration failed: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
} finally {
  await programs.stopAll();
  if (parsed.keep) console.log(`\nkept: ${directory}`);
  else await rm(directory, { recursive: true, force: true });
}

function fail(error: unknown, status: number): never {
  console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
  process.exit(status);
}

async function demonstrate(
  fromSpec: { name: string; version: string },
  toSpec: { name: string; version: string },
): Promise<void> {
  const startedAt = performance.now();
  screen.title("Lockstep: load a release, and every installation follows");
  screen.say(
    "One hub keeps every file of a product. A server and a workstation hold the files of their machine roles, notice " +
      "by themselves that something was loaded, and replace exactly what differs: all of it or nothing.",
  );

  screen.heading("Two real releases of a real product");
  const before = await fetchRelease(fromSpec);
  const after = await fetchRelease(toSpec);

  screen.heading("A hub, with a database of its own");
  await startHub();

  screen.heading(`Load ${before.name} ${before.version}`);
  screen.say(
    `Its module description gives each file a machine role: ${SERVER_ROLE} gets what runs, ${WORKSTATION_ROLE} gets ` +
      "types, source maps and documentation.",
  );
  await loadRelease(before);

  screen.heading("Install a server and a workstation");
  const installations: Installation[] = [
    { machine: "server", directory: join(directory, "server"), role: SERVER_ROLE },
    { machine: "workstation", directory: join(directory, "workstation"), role: WORKSTATION_ROLE },
  ];
  for (const installation of installations) await install(installation, before);

  screen.heading("From now on they follow by themselves");
  await startAgents(installations);

  screen.heading(`Load ${after.name} ${after.version}, and watch them follow`);
  const changes = new Map<Machine, number>();
  for (const { machine } of installations) {
    const difference = await compareReleases(
      await expectedFiles(machine, before),
      await expectedFiles(machine, after),
    );
    changes.set(machine, difference.added + difference.changed);
    screen.say(`To come on the ${machine}: ${describeDifference(difference)}.`);
  }
  const loadedAt = Date.now();
  const revision = await loadRelease(after);
  await follow(installations, revision, loadedAt, changes);
  await verify(installations, after, new Map());

  screen.heading("Add a file of the customer's own");
  screen.say(
    "It belongs to the module CCC, so no later version of the product removes it. Only servers get it.",
  );
  const custom = await makeCustomFile();
  const customLoadedAt = Date.now();
  const customRevision = await loadCustom(custom.directory);
  await follow(installations, customRevision, customLoadedAt, new Map([["server", 1]]));
  await verify(installations, after, new Map([[custom.path, custom.file]]));

  agents.clear();
  await programs.stopAll();
  screen.heading("Done");
  screen.say(
    `Both installations are in step with software revision ${customRevision}, each with its own files, and nothing was ` +
      `done on them by hand. ${formatDuration(performance.now() - startedAt)} in all.`,
  );
}

async function fetchRelease(spec: { name: string; version: string }): Promise<PublishedPackage> {
  const product = await fetchPackage(spec, checkout, signal);
  const where = product.cached ? "from the cache" : "fetched with npm pack";
  screen.ok(
    `${product.name} ${product.version}: ${formatCount(product.files)} files, ${formatBytes(product.bytes)}, ${where}`,
  );
  return product;
}

async function startHub(): Promise<void> {
  screen.command("lockstep hub --data hub --dev");
  const startedAt = performance.now();
  const args = ["hub", "--data", join(directory, "hub"), "--listen", "127.0.0.1:0", "--dev"];
  const patience = AbortSignal.any([signal, AbortSignal.timeout(START_MS_MAX)]);
  const url = await programs.start("hub", args, "ready ", patience);
  programs.useHub(url);
  screen.ok(`serving at ${url} after ${formatDuration(performance.now() - startedAt)}`);
}

/** Loads a release with its module description. Returns the software revision that carries it. */
async function loadRelease(product: PublishedPackage): Promise<number> {
  const description = join(directory, `module-${product.version}.toml`);
  await writeFile(description, describeModule(product));
  screen.command(
    `lockstep load ${product.name}-${product.version} --module-file module.toml --kind version --yes`,
  );
  return load([product.directory, "--module-file", description, "--kind", "version"]);
}

async function loadCustom(path: string): Promise<number> {
  screen.command(`lockstep load custom-files --module CCC --kind custom --assign '**=${SERVER_ROLE}' --yes`);
  return load([
    path,
    "--module",
    "CCC",
    "--version",
    "1",
    "--kind",
    "custom",
    "--assign",
    `**=${SERVER_ROLE}`,
  ]);
}

async function load(args: readonly string[]): Promise<number> {
  const startedAt = performance.now();
  const output = await programs.run(["load", ...args, "--yes", "--json"], signal);
  const document = JSON.parse(output) as { revision: unknown; contents: number; contentBytes: number };
  if (typeof document.revision !== "number") throw new Error(`load reported no software revision: ${output}`);
  screen.ok(
    `software revision ${document.revision} after ${formatDuration(performance.now() - startedAt)}; ` +
      `${counted(document.contents, "new content")}, ${formatBytes(document.contentBytes)}`,
  );
  return document.revision;
}

async function install(
  { machine, directory: path, role }: Installation,
  product: PublishedPackage,
): Promise<void> {
  screen.command(`lockstep install ${machine} --role ${role}`);
  const startedAt = performance.now();
  await programs.run(["install", path, "--role", role, "--json"], signal);
  const ms = performance.now() - startedAt;
  const found = await compareInstallation(path, await expectedFiles(machine, product));
  demand(found.faults, machine);
  screen.ok(
    `${machine}: ${formatCount(found.files)} files, ${formatBytes(found.bytes)} in ${formatDuration(ms)}, all as published`,
  );
}

/** Starts an agent for each installation and waits until it has found it in step. */
async function startAgents(installations: readonly Installation[]): Promise<void> {
  for (const { machine, directory: path } of installations) {
    screen.command(`lockstep agent ${machine} &`);
    agents.set(machine, new AgentWatch(programs, `agent-${machine}`, path));
  }
  const waitUntil = performance.now() + FOLLOW_MS_MAX;
  for (const [machine, agent] of agents) {
    while (agent.seen === null) await nextLook(waitUntil);
    screen.ok(`${machine}: in step with software revision ${agent.seen}, and listening for the next`);
  }
}

/** Lets a moment pass. Throws when the demonstration was stopped, an agent fails or time is up. */
async function nextLook(waitUntil: number): Promise<void> {
  await systemClock.sleep(LOOK_MS, signal);
  signal.throwIfAborted();
  for (const agent of agents.values()) agent.demandHealth();
  if (performance.now() > waitUntil) throw new Error("the installations do not follow");
}

/** Waits until every installation has the revision, showing how far each is. Times count from `since`. */
async function follow(
  installations: readonly Installation[],
  revision: number,
  since: number,
  changes: ReadonlyMap<Machine, number>,
): Promise<void> {
  const waitUntil = performance.now() + FOLLOW_MS_MAX;
  for (;;) {
    const lines = new Map<Machine, string>();
    const done = new Set<Machine>();
    for (const { machine, directory: path } of installations) {
      const total = changes.get(machine) ?? 0;
      const name = machine.padEnd(12);
      const followed = agents.get(machine)?.followed(revision);
      if (followed === undefined) {
        const { revision: has, staged } = await observe(path);
        const ready = `${formatCount(Math.min(staged, total))} of ${counted(total, "file")} ready`;
        lines.set(
          machine,
          `${name} ${screen.bar(total === 0 ? 0 : staged / total)} revision ${has}, ${ready}`,
        );
        continue;
      }
      const ms = followed.at - since;
      const what =
        total === 0 ? "nothing in it for this machine" : `${counted(total, "file")} replaced or added`;
      const received = `${formatBytes(followed.receivedBytes)} received`;
      done.add(machine);
      lines.set(
        machine,
        `${name} ${screen.bar(1)} revision ${revision} ${formatDuration(ms)} after the load began; ${what}, ${received}`,
      );
    }
    screen.live(lines, done);
    if (done.size === installations.length) break;
    await nextLook(waitUntil);
  }
  screen.settle();
}

/** Compares each installation with what was published. Ends the demonstration where anything is off. */
async function verify(
  installations: readonly Installation[],
  product: PublishedPackage,
  serverOnly: ReadonlyMap<string, string>,
): Promise<void> {
  for (const { machine, directory: path } of installations) {
    const expected = await expectedFiles(machine, product);
    if (machine === "server") for (const [place, file] of serverOnly) expected.set(place, file);
    const found = await compareInstallation(path, expected);
    demand(found.faults, machine);
    screen.ok(
      `${machine}: ${formatCount(found.files)} files, ${formatBytes(found.bytes)}: none missing, none more, every byte ` +
        "as published",
    );
  }
}

function demand(faults: readonly string[], machine: Machine): void {
  if (faults.length === 0) return;
  for (const fault of faults.slice(0, 10)) screen.wrong(fault);
  throw new Error(`the ${machine} is not what it should be: ${formatCount(faults.length)} differences`);
}

function describeDifference(difference: Difference): string {
  const parts = [
    `${counted(difference.changed, "file")} changed`,
    `${formatCount(difference.added)} new`,
    `${formatCount(difference.removed)} gone`,
    `${formatCount(difference.equal)} equal`,
  ];
  return `${parts.join(", ")} (${formatBytes(difference.bytes)} differ)`;
}

async function makeCustomFile(): Promise<{ directory: string; path: string; file: string }> {
  const path = "custom/site.json";
  const base = join(directory, "custom-files");
  await mkdir(join(base, "custom"), { recursive: true });
  const file = join(base, path);
  await writeFile(
    file,
    `${JSON.stringify({ site: "Example Works", loadedBy: "the demonstration" }, null, 2)}\n`,
  );
  return { directory: base, path, file };
}

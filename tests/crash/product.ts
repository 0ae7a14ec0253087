import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { type ApplyContext, recover } from "../../packages/updater/src/apply/index.ts";
import { startTestHub, type TestHub } from "../cli/hub.ts";
import { lockstep, PROGRAM } from "../cli/lockstep.ts";
import { copyTree, describeMix, type RealTree, readTree, sameTree } from "./story-tree.ts";
import { runStruck, type TracedCall, traceChanges } from "./strace.ts";
import type { PointOutcome } from "./sweep.ts";

/**
 * The whole product under the knife: a real hub, a real installation of it, and `lockstep update` as anybody runs it,
 * with the unpacked updater in a process of its own. Whichever of the two processes is struck, and wherever.
 */
export interface Product {
  /** An installation at the first release, while the hub is at the second. */
  readonly base: string;
  readonly before: RealTree;
  readonly after: RealTree;
  /** Every call of an undisturbed update that changes something in the installation. */
  readonly calls: readonly TracedCall[];
  readonly environment: Readonly<Record<string, string>>;
  dispose(): Promise<void>;
}

/** Larger than what travels in a bundle, and not to be made smaller: it comes alone, and is moved into place. */
const LARGE = Buffer.concat(
  Array.from({ length: 40_000 }, (_, at) => createHash("sha256").update(`${at}`).digest()),
);

export const LARGE_SHA256 = createHash("sha256").update(LARGE).digest("hex");

const FIRST = {
  "app/server.js": "one",
  "app/lib/a.js": "one",
  "app/lib/b.js": "one",
  "app/doc": "one",
  "app/same": "same",
};
const SECOND = {
  "app/server.js": "two",
  "app/lib/a.js": "two",
  "app/doc/first": "two",
  "app/new/c.js": "two",
  "app/new/large": LARGE,
  "app/same": "same",
};

/** How the new contents travel: as what changed, made by the hub, or whole, the small ones in a bundle. */
export const TRANSFERS = ["step", "bundle"] as const;
export type Transfer = (typeof TRANSFERS)[number];

export async function makeProduct(directory: string, transfer: Transfer): Promise<Product> {
  const hub = await startTestHub(directory);
  try {
    if (transfer === "bundle") await mustRun(["settings", "set", "Common/Transfer/Steps=false"], hub.env);
    await load(hub, directory, "1", FIRST);
    const base = join(directory, "product-base");
    await mustRun(["install", base, "--role", "Server"], hub.env);
    fs.writeFileSync(join(base, "mine.txt"), "mine");
    const before = productTree(base);
    await load(hub, directory, "2", SECOND);
    const work = join(directory, "product-work");
    if (transfer === "step") await untilThereIsAStep(base, work, hub.env);
    copyTree(base, work);
    const calls = await traceChanges(commandFor(work), work, join(directory, "trace"), hub.env);
    const after = productTree(work);
    fs.rmSync(work, { recursive: true });
    return { base, before, after, calls, environment: hub.env, dispose: async () => void (await hub.stop()) };
  } catch (error) {
    await hub.stop();
    throw error;
  }
}

/**
 * The hub makes the step to the second release in the background, and an update with it makes other calls than one
 * without: from now on every update has it.
 */
async function untilThereIsAStep(
  base: string,
  work: string,
  env: Readonly<Record<string, string>>,
): Promise<void> {
  for (let isUsed = false; !isUsed; ) {
    copyTree(base, work);
    await mustRun(["update", work, "--quiet"], env);
    isUsed = /"action":"step".*"result":"ok"/.test(fs.readFileSync(join(work, "update.log"), "utf8"));
    fs.rmSync(work, { recursive: true });
  }
}

function commandFor(root: string): string[] {
  return [process.execPath, PROGRAM, "update", root, "--quiet"];
}

async function load(
  hub: TestHub,
  directory: string,
  version: string,
  files: Record<string, string | Buffer>,
): Promise<void> {
  const source = join(directory, `release-${version}`);
  for (const [path, content] of Object.entries(files)) {
    fs.mkdirSync(join(source, path, ".."), { recursive: true });
    fs.writeFileSync(join(source, path), content);
  }
  await mustRun(
    ["load", source, "--module", "APP", "--version", version, "--assign", "**=Server", "--yes"],
    hub.env,
  );
}

async function mustRun(parameters: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
  const { status, stderr } = await lockstep(parameters, { env });
  if (status !== 0) throw new Error(`lockstep ${parameters.join(" ")} ended with ${status}: ${stderr}`);
}

/** The product's files, and of ours those that say what is installed; times and logs differ from run to run. */
function productTree(root: string): RealTree {
  const tree = new Map<string, string>();
  for (const [path, what] of readTree(root)) {
    if (path.startsWith("update.l")) continue;
    tree.set(path, path === ".softwarerevision.viv" ? (what.split("\n")[0] ?? "") : what);
  }
  return tree;
}

/**
 * Strikes one call of an update, then lets the next one come. Two processes share the counts of a name: where the other
 * one reaches it first, elsewhere, the point is missed.
 */
export async function tryProduct(
  product: Product,
  call: TracedCall,
  error: string | null,
): Promise<PointOutcome> {
  const root = product.base.replace(/-base$/, "-work");
  const log = product.base.replace(/-base$/, "-trace");
  fs.rmSync(root, { recursive: true, force: true });
  copyTree(product.base, root);
  try {
    const outcome = await runStruck(commandFor(root), { call, error, root, log }, product.environment);
    if (!outcome.struck) return "missed";
    const lie = error === null ? null : judgeClaim(product, root, outcome);
    return { fault: lie ?? (await theNextOneComes(product, root)) };
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
}

/** Holds what an update said against what is there; null when it is so. */
export function judgeClaim(
  product: Product,
  root: string,
  { status, stderr }: { readonly status: number | null; readonly stderr: string },
): string | null {
  if (/\n {4}at /.test(stderr)) return `it shows a stack: ${stderr}`;
  const named = /^error (?!INTERNAL\b)[A-Z_]+/m.test(stderr);
  if (status !== 0 && !named) return `not a named error: status ${status} ${stderr}`;
  if (fs.existsSync(`${root}/.lockstep/commit.json`))
    return status === 0 ? "it said yes and left its record in force" : null;
  const found = productTree(root);
  if (status === 0)
    return sameTree(found, product.after) ? null : "it said yes, and the installation is not new";
  return sameTree(found, product.before) ? null : `it said no, and the installation is not old: ${stderr}`;
}

export async function theNextOneComes(product: Product, root: string): Promise<string | null> {
  const ctx: ApplyContext = { disk: realDisk, root, clock: systemClock, log: silentLogger };
  try {
    await recover(ctx);
  } catch (error) {
    return `stuck: ${error instanceof Error ? error.message : error}`;
  }
  const found = productTree(root);
  if (!sameTree(found, product.before) && !sameTree(found, product.after))
    return `a mix:\n${describeMix(found, product.before, product.after)}`;
  const { status, stderr } = await lockstep(["update", root, "--quiet"], { env: product.environment });
  if (status !== 0) return `the next update ended with ${status}: ${stderr}`;
  const final = productTree(root);
  if (!sameTree(final, product.after))
    return `after the next update:\n${describeMix(final, product.before, product.after)}`;
  // Files of the update before the last may outlive a kill right at the end; the next update clears them.
  const staging = fs.readdirSync(join(root, ".lockstep/staging")).filter((name) => !name.endsWith(".former"));
  return staging.length === 0 ? null : `left over: ${staging.join(" ")}`;
}

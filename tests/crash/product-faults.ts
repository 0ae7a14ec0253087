import * as fs from "node:fs";
import { pathToFileURL } from "node:url";
import { type Ended, lockstep } from "../cli/lockstep.ts";
import { judgeClaim, type Product, theNextOneComes } from "./product.ts";
import { copyTree } from "./story-tree.ts";

/**
 * Every call of node:fs on an installation, in either process of `lockstep update`, lets itself fail with an error of the
 * system. Finer than strace for that: also calls that only look are struck, and each is found again in another run.
 */
export interface FaultPoint {
  readonly process: "command" | "updater";
  /** The how-manieth of this name on this path in that process. */
  readonly call: number;
  readonly name: string;
  /** Relative to the installation, without what is drawn anew in each run. */
  readonly path: string;
}

/** Errors that a call can meet. */
export function codesFor({ name }: FaultPoint): readonly string[] {
  if (["open", "readFile", "readdir"].includes(name)) return ["EIO", "EACCES", "EMFILE"];
  if (["lstat", "stat", "access", "readlink", "realpath", "statfs"].includes(name)) return ["EIO", "EACCES"];
  if (["read", "fstat", "close", "exists"].includes(name)) return ["EIO"];
  return ["EIO", "ENOSPC", "EACCES"];
}

const PRELOAD = pathToFileURL(`${import.meta.dirname}/fs-faults.mjs`).href;

/** The calls of an undisturbed update. */
export async function listFaultPoints(product: Product): Promise<FaultPoint[]> {
  const { log } = placesOf(product);
  const { status, stderr } = await run(product, { process: "command", call: 0, name: "", path: "" }, "");
  if (status !== 0) throw new Error(`the undisturbed update ended with ${status}: ${stderr}`);
  const lines = fs.readFileSync(log, "utf8").trimEnd().split("\n");
  return lines.map((line) => {
    const [role, call, name, ...path] = line.split(" ");
    return {
      process: role === "updater" ? "updater" : "command",
      call: Number(call),
      name: name ?? "",
      path: path.join(" "),
    };
  });
}

/** What a point came to; `struck` false: the call was not reached; null for a fault: nothing is wrong. */
export interface FaultOutcome {
  readonly struck: boolean;
  readonly fault: string | null;
  readonly ended: Ended;
}

/**
 * Fails one call. Afterwards the update has either succeeded, and the installation is at the new revision, or has ended
 * with a named error that is none of ours; the installation is then wholly old, or says itself that it is not finished.
 * The next update puts everything right.
 */
export async function tryFault(product: Product, point: FaultPoint, code: string): Promise<FaultOutcome> {
  const { root, log } = placesOf(product);
  const ended = await run(product, point, code);
  const struck = fs.existsSync(log) && fs.readFileSync(log, "utf8").startsWith("struck");
  try {
    const claim = judgeClaim(product, root, ended);
    return { struck, ended, fault: claim ?? (await theNextOneComes(product, root)) };
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
}

function placesOf(product: Product): { root: string; log: string } {
  return {
    root: product.base.replace(/-base$/, "-work"),
    log: product.base.replace(/-base$/, "-faults"),
  };
}

async function run(product: Product, point: FaultPoint, code: string): Promise<Ended> {
  const { root, log } = placesOf(product);
  fs.rmSync(root, { recursive: true, force: true });
  fs.rmSync(log, { force: true });
  copyTree(product.base, root);
  return await lockstep(["update", root, "--quiet"], {
    env: {
      ...product.environment,
      NODE_OPTIONS: `--import ${PRELOAD}`,
      LOCKSTEP_FAULT: JSON.stringify({ ...point, root, code, log }),
    },
  });
}

export function describeFault({ process, call, name, path }: FaultPoint, code: string): string {
  return `lockstep update, ${code} from ${name} ${path === "" ? "." : path} (call ${call} of the ${process})`;
}

import type { PushedConfig, VirtualServerDefinition } from "@lockstep/core";
import type { Disk } from "@lockstep/platform";
import { replaceFile } from "./checkpoint-record.ts";
import { hashOf } from "./checkpoint-scan.ts";
import { type AdoptOwner, parentOf } from "./lay-down.ts";

/**
 * The configuration file of a virtual server on one node (S10, S11).
 *
 * Each node has its own copy and nothing replicates it by itself. A push is one act of an administrator: its text stands in
 * the store, and each node lays it down once. What somebody changes afterwards stays and is reported, since whoever edits
 * the file of one node had a reason or made a mistake, and neither is ours to decide.
 */
export interface ConfigPullOptions {
  readonly disk: Disk;
  /** Private, absolute: remembers which push was laid down. */
  readonly memory: string;
  /** `report`: changes no file, for nodes whose configuration somebody else manages. */
  readonly policy: "accept" | "report";
  readonly adopt: AdoptOwner;
}

export type ConfigPull =
  /** Nothing to do, or nothing that was pushed counts. */
  | { readonly kind: "none" }
  | { readonly kind: "equal" }
  | { readonly kind: "written"; readonly before: string | null }
  /** It differs and stays so. */
  | { readonly kind: "left"; readonly why: string };

/** A configuration beyond this is none. */
const BYTES_MAX = 1024 * 1024;
const MODE = 0o644;

/**
 * Brings this node's copy in step with a push, if it has not been laid down here before. `revision`: that of the push's
 * document. The file before is kept as `FILE.previous`; both steps are whole or not at all. Throws errors of the system.
 */
export async function pullConfig(
  { disk, memory, policy, adopt }: ConfigPullOptions,
  { config }: VirtualServerDefinition,
  pushed: { readonly revision: number; readonly config: PushedConfig } | null,
): Promise<ConfigPull> {
  // A push that is half written, or one for a file that is no longer the one.
  if (config === null || pushed === null) return { kind: "none" };
  if (config.path !== pushed.config.path || config.hash !== pushed.config.hash) return { kind: "none" };
  const bytes = Buffer.from(pushed.config.text, "utf8");
  if (hashOf(bytes) !== pushed.config.hash)
    return { kind: "left", why: "what was pushed is damaged in the store" };
  const present = disk.lstat(config.path);
  if (present?.kind === "file" && present.size === bytes.length && bytes.equals(disk.readFile(config.path))) {
    await remember(disk, memory, pushed.revision);
    return { kind: "equal" };
  }
  if (policy === "report") return { kind: "left", why: "this node takes no pushed configuration" };
  if (recall(disk, memory) >= pushed.revision)
    return { kind: "left", why: "it was changed here after it was pushed" };
  if (present !== null && present.kind !== "file")
    return { kind: "left", why: `${config.path} is a link or a directory, and is not replaced` };
  if (disk.lstat(parentOf(config.path))?.kind !== "directory")
    return { kind: "left", why: `${parentOf(config.path)} is not there: is the service installed here?` };
  let before: string | null = null;
  if (present !== null && present.size <= BYTES_MAX) {
    const old = disk.readFile(config.path);
    before = hashOf(old);
    await replaceFile(disk, `${config.path}.previous`, old, present.mode);
  }
  const like = present === null ? parentOf(config.path) : config.path;
  await replaceFile(disk, config.path, bytes, present?.mode ?? MODE, (path) => adopt(path, like));
  await remember(disk, memory, pushed.revision);
  return { kind: "written", before };
}

/** The revision of the push that was laid down here last; 0: none. */
function recall(disk: Disk, memory: string): number {
  if (disk.lstat(memory)?.kind !== "file") return 0;
  const revision = Number(Buffer.from(disk.readFile(memory)).toString("utf8"));
  return Number.isSafeInteger(revision) ? revision : 0;
}

async function remember(disk: Disk, memory: string, revision: number): Promise<void> {
  if (recall(disk, memory) !== revision)
    await replaceFile(disk, memory, Buffer.from(String(revision), "utf8"), 0o600);
}

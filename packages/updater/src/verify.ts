import {
  counted,
  type EditsPolicy,
  type FileEntry,
  makePlan,
  type PlanOperation,
  type PlanSums,
  planRows,
  type ReplaceReason,
} from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { runIn } from "./hand-over.ts";
import { isUnfinished, locate, readInstalledRevision, readStateFile } from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { findLogBreak, type LogBreak } from "./log-break.ts";
import { nextIndex, observe, type Unreadable } from "./observe.ts";
import { type ProgressListener, ProgressMeter } from "./progress.ts";
import { recoverFirst } from "./recovery.ts";
import { describeProblem } from "./report.ts";
import type { RunResult } from "./run-types.ts";
import { newRunId, type SessionOptions, withInstallation } from "./session.ts";
import { digestList, type ListDigest, StatIndex, writeIndexFile } from "./stat-index.ts";

export interface VerifyOptions extends SessionOptions {
  /** True: believe the stat cache and read only what it does not vouch for. False (the default): read every file. */
  readonly quick?: boolean;
}

/** A file that is not as it was installed. */
export interface Damage {
  readonly path: string;
  readonly problem: ReplaceReason | "blocked";
  readonly expected: string;
  readonly found: string;
}

export interface VerifyResult {
  readonly revision: number | null;
  readonly files: number;
  readonly bytes: number;
  /** How many files were opened. */
  readonly read: number;
  readonly damages: readonly Damage[];
  /** What this user may not read, so that nothing can be said of it. */
  readonly unreadable: readonly Unreadable[];
  /** What a repair would do with them. */
  readonly edits: EditsPolicy;
  /** Where update.log was altered; null where it was not, or cannot be read by this user, which is told. */
  readonly logBreak: LogBreak | null;
}

/**
 * Holds every installed file against what InstallState.config says of it: size, content, mode; and the records of update.log
 * against each other. Needs no hub and changes nothing of the product; what it learned goes into the stat cache. An interrupted
 * update is finished first. A file that this user may not read is named and does not end the look at the others.
 */
export async function verify(directory: string, options: VerifyOptions): Promise<VerifyResult> {
  const paths = locate(directory);
  if (isUnfinished(paths)) await recoverFirst(paths, { environment: options.access.environment });
  const clock = options.clock ?? systemClock;
  const progress = options.progress ?? (() => {});
  const { state, text } = readStateFile(paths);
  const { files, settings } = state;
  const list = digestList(text);
  const rows = planRows(files, files);
  const index = StatIndex.read(paths.index, files.length, list);
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  progress({
    kind: "phase",
    phase: "verify",
    detail: `verifying ${counted(files.length, "file")}, ${counted(bytes, "byte")}`,
  });
  const unreadable: Unreadable[] = [];
  const observation = await observe(paths.root, rows, index, {
    unreadable,
    everything: options.quick !== true,
    now: clock.now,
    signal: options.signal,
    meter: new ProgressMeter(progress, "verify", { files: files.length, bytes }, clock.monotonic),
  });
  const { operations, faults } = makePlan(rows, observation.locals, {
    edits: "replace",
    modes: process.platform !== "win32",
  });
  remember(paths, { files, list }, rows, observation, index);
  return {
    revision: readInstalledRevision(paths)?.revision ?? null,
    files: files.length,
    bytes,
    read: observation.read,
    damages: [
      ...operations.flatMap(toDamage),
      ...faults.map(
        ({ path, problem }) => ({ path, problem: "blocked", expected: "a file", found: problem }) as const,
      ),
    ],
    unreadable,
    edits: settings.edits,
    logBreak: lookAtLog(paths, progress),
  };
}

/** What this user may not read, as the failure of whoever needs to know of every file; null: it reads them all. */
export function notReadable(directory: string, unreadable: readonly Unreadable[]): LockstepError | null {
  const [first] = unreadable;
  if (first === undefined) return null;
  const others = unreadable.length === 1 ? "" : ` and ${counted(unreadable.length - 1, "file")} more`;
  return new LockstepError(
    "INSTALLATION_IO_FAILED",
    `this user may not read ${directory}/${first.path}${others}`,
    {
      expected: "every file readable",
      found: first.found,
      hint: "Run it as the user who owns the installation, or give this one permission to read.",
    },
  );
}

function lookAtLog(paths: InstallationPaths, progress: ProgressListener): LogBreak | null {
  try {
    return findLogBreak(paths);
  } catch (error) {
    progress({ kind: "notice", message: `update.log was not looked at: ${describeProblem(error)}` });
    return null;
  }
}

/** A cache that lacked something is written anew; another update may run meanwhile, so only over the same files. */
function remember(
  paths: InstallationPaths,
  { files, list }: { readonly files: readonly FileEntry[]; readonly list: ListDigest },
  rows: ReturnType<typeof planRows>,
  observation: Awaited<ReturnType<typeof observe>>,
  index: StatIndex,
): void {
  if (observation.read === 0) return;
  const next = nextIndex(files, rows, observation, index, new Map(), 0).format(list);
  if (!index.format(list).equals(next) && !isUnfinished(paths)) writeIndexFile(paths, next);
}

function toDamage(operation: PlanOperation): Damage[] {
  if (operation.kind !== "replace") return [];
  const { entry, found, reason } = operation;
  const describe = (file: { size: number; mode: number; sha256: string | null }) => {
    if (reason === "size") return `${file.size} bytes`;
    if (reason === "mode") return `mode ${file.mode.toString(8).padStart(3, "0")}`;
    if (reason === "lost" && file.sha256 === null) return "what the disk does not give any more (EIO)";
    return file.sha256 ?? "a file";
  };
  return [
    {
      path: operation.path,
      problem: reason,
      expected: describe(entry),
      found: found === null ? (FOUND[reason] ?? "something else") : describe(found),
    },
  ];
}

const FOUND: Record<string, string> = { missing: "nothing", link: "a symbolic link", folder: "a folder" };

export interface RepairOptions extends SessionOptions {
  /** Another policy for local edits; `replace` brings back everything. */
  readonly edits?: EditsPolicy | undefined;
}

export interface RepairResult {
  readonly revision: number;
  readonly sums: PlanSums;
  readonly run: RunResult;
}

/**
 * Brings every file back to what is installed, reading all of them; what is missing or changed is fetched. Edited files
 * are treated by the policy. The software revision stays as it is. Throws what an update throws.
 */
export async function repair(directory: string, options: RepairOptions): Promise<RepairResult> {
  const paths = locate(directory);
  return await withInstallation(paths, options, async ({ host }) => {
    const revision = readInstalledRevision(paths)?.revision;
    if (revision === undefined)
      throw new LockstepError("INSTALLATION_DAMAGED", `nobody knows at which revision ${paths.root} is`, {
        expected: paths.revision,
        found: "no usable revision file",
        hint: "Run lockstep update: it reads and mends every file that differs, and writes the revision file anew.",
      });
    const startedAt = host.clock.now();
    const run = await runIn(
      null,
      {
        format: "lockstep-run/1",
        directory: paths.root,
        mode: "repair",
        revision,
        initial: null,
        edits: options.edits ?? null,
        archive: null,
        run: newRunId(startedAt),
        startedAt,
        trigger: "manual",
      },
      host,
    );
    return { revision, sums: run.sums, run };
  });
}

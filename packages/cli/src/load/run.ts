import { resolve } from "node:path";
import { setFlagsFromString } from "node:v8";
import type { HubClient } from "@lockstep/client";
import { listenForInterruption, printable, systemClock } from "@lockstep/platform";
import {
  isLockstepError,
  type LoadComparison,
  type LoadRequest,
  type LoadResult,
  LockstepError,
} from "@lockstep/protocol/wire";
import { awaitRevision } from "../await-revision.ts";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { retold } from "../retold.ts";
import { counted, formatBytes, formatCount } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { Progress } from "../screen/progress.ts";
import { askYesNo, canAsk } from "../screen/question.ts";
import { singleTopFolder, suspectBase } from "./base-directory.ts";
import { describeComparison, type LoadSummary, summarize } from "./comparison.ts";
import { describeLoad, type LoadArguments, type LoadDescription } from "./description.ts";
import { digestFiles } from "./digest.ts";
import { encodeContents } from "./encode.ts";
import { type Scan, scanDirectory } from "./scan.ts";
import type { DigestedFile } from "./work.ts";
import { WorkerPool } from "./worker-pool.ts";

export interface LoadOptions extends LoadArguments, HubArguments {
  readonly exclude?: readonly string[];
  readonly note?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly wait?: boolean;
  readonly waitSeconds?: number;
  readonly verbose?: boolean;
  readonly quiet?: boolean;
  readonly json?: boolean;
}

/** Less than this is done before the first thread has started. */
const FEW_FILES = 100;
const FEW_BYTES = 8 * 1024 * 1024;

/**
 * The Software Loader: read, digest, compare, show, ask, send, wait (domain 1.8, behaviours 44 and 45).
 *
 * Until the question is answered nothing has been changed anywhere; after it the hub takes everything in one
 * transaction or nothing. So it may be stopped at any moment and leaves nothing behind, until the hub has everything: then the
 * hub decides, and whoever is stopped says so.
 */
export async function runLoad(directory: string, options: LoadOptions): Promise<void> {
  keepNewSpaceSmall();
  const output = new Output(options);
  using interruption = listenForInterruption();
  const base = resolve(directory);
  const description = await describeLoad(base, options);
  const scan = scanDirectory(base, { exclude: options.exclude ?? [], omit: description.omit });
  tellScan(scan, output);
  if (scan.files.length === 0 && description.declared === null)
    throw new LockstepError("LOAD_EMPTY", `there is nothing to load in ${base}`, {
      hint: "Check the directory, and what --exclude leaves out.",
    });
  await withHub(options, async (hub) => {
    // A wrong address or token is told before a gigabyte is read.
    await hub.settings({ signal: interruption.signal });
    const few = scan.files.length <= FEW_FILES && scan.bytes <= FEW_BYTES;
    const pool = few ? new WorkerPool(0) : new WorkerPool();
    try {
      const files = await digest(scan, pool, output, interruption.signal);
      const load = new Load(hub, files, description, options, output, interruption.signal);
      await load.run(scan, pool);
    } finally {
      await pool.close();
    }
  });
}

/**
 * Keeps V8 from making room for new objects larger and larger: the loader makes many that live for a moment, and without
 * this some sixty megabytes are taken for them, for no gain in time that could be measured. One of the few settings that
 * V8 looks at each time anew; where it did not, nothing would be worse than before.
 */
function keepNewSpaceSmall(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
}

async function digest(
  scan: Scan,
  pool: WorkerPool,
  output: Output,
  signal: AbortSignal,
): Promise<DigestedFile[]> {
  const progress = output.quiet ? null : new Progress("reading", output.remarks, systemClock);
  const filesTotal = scan.files.length;
  try {
    const files = await digestFiles(scan, pool, {
      signal,
      onProgress: (done) => progress?.update({ ...done, bytesTotal: scan.bytes, filesTotal }),
    });
    progress?.finish();
    return files;
  } catch (error) {
    progress?.finish(null);
    throw error;
  }
}

function tellScan(scan: Scan, output: Output): void {
  if (scan.excluded.length > 0) output.note(`left out by --exclude: ${listed(scan.excluded)}`);
  if (scan.specialModes.length > 0)
    output.note(
      `set-user-id, set-group-id and sticky bits do not travel; dropped from ${listed(scan.specialModes)}`,
    );
  if (scan.emptyFolders.length > 0) output.note(`empty folders are not loaded: ${listed(scan.emptyFolders)}`);
}

function listed(paths: readonly string[]): string {
  const shown = paths.slice(0, 5).map((path) => printable(path));
  const rest = paths.length - shown.length;
  return `${shown.join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}

/** One load on its way through comparison, question, transfer and waiting. */
class Load {
  readonly #hub: HubClient;
  readonly #files: readonly DigestedFile[];
  readonly #request: LoadRequest;
  readonly #options: LoadOptions;
  readonly #output: Output;
  readonly #signal: AbortSignal;

  constructor(
    hub: HubClient,
    files: readonly DigestedFile[],
    description: LoadDescription,
    options: LoadOptions,
    output: Output,
    signal: AbortSignal,
  ) {
    this.#hub = hub;
    this.#files = files;
    this.#options = options;
    this.#output = output;
    this.#signal = signal;
    this.#request = toRequest(files, description, options);
  }

  async run(scan: Scan, pool: WorkerPool): Promise<void> {
    const comparison = await this.#hub.compareLoad(this.#request, { signal: this.#signal });
    const summary = summarize(this.#request, comparison);
    this.#show(comparison, summary);
    const warnings = await this.#suspicions(comparison, summary);
    for (const warning of warnings) this.#output.warn(warning);
    this.#refuse(comparison);
    if (this.#options.dryRun === true) {
      this.#output.document(this.#document(comparison, summary, warnings, null, null));
      return;
    }
    if (summary.changes) await this.#confirm(warnings);
    const result = await this.#send(scan, comparison, pool);
    const { wait, waitSeconds } = this.#options;
    // A load that changes nothing has its revision already, unless that one waits for a signature.
    const revision =
      wait === false
        ? result.changes
          ? null
          : result.revisionBefore
        : await awaitRevision(this.#hub, result, {
            waitSeconds,
            module: this.#request.module.id,
            signal: this.#signal,
            onStopped: (remark) => this.#output.warn(remark),
          });
    this.#output.document(this.#document(comparison, summary, warnings, result, revision));
    this.#tell(result, revision);
  }

  #show(comparison: LoadComparison, summary: LoadSummary): void {
    const verbose = this.#options.verbose === true;
    // Of a dry run the comparison is the result; else it is only what leads to the question.
    const dry = this.#options.dryRun === true;
    for (const line of describeComparison(this.#request, comparison, summary, verbose, this.#output))
      if (dry) this.#output.line(line);
      else this.#output.note(line);
  }

  #refuse(comparison: LoadComparison): void {
    if (comparison.refusals.length === 0) return;
    throw new LockstepError("LOAD_REFUSED", `the repository would refuse ${this.#name()}`, {
      faults: comparison.refusals,
      hint: "Nothing was loaded. Correct these, or choose another --kind.",
    });
  }

  async #suspicions(comparison: LoadComparison, summary: LoadSummary): Promise<string[]> {
    const paths = this.#request.files.map((file) => file.path);
    const unknown = paths.filter((_, index) => comparison.statuses[index] === "unknown");
    if (unknown.length === 0) return [];
    const known = summary.counts.unknown * 2 >= paths.length ? await this.#knownPaths(comparison, paths) : [];
    const suspicion = suspectBase(unknown, known);
    const consequence = "every installation would get a second tree of folders";
    if (suspicion?.kind === "too-high")
      return [
        `the directory looks too high: ${counted(suspicion.files, "file")} of the repository would be loaded again below ${printable(suspicion.folder)}/, and ${consequence}. Did you mean ${printable(suspicion.folder)} inside it?`,
      ];
    if (suspicion?.kind === "too-deep")
      return [
        `the directory looks too deep: ${counted(suspicion.files, "file")} of the repository would be loaded again without ${printable(suspicion.folder)}/, and ${consequence}. Did you mean the directory above?`,
      ];
    const top = singleTopFolder(paths);
    const isNew = comparison.currentVersion === null && known.length === 0;
    return top !== null && isNew && paths.length > 1
      ? [
          `everything lies in the one folder ${printable(top)}/, which will stand in every installation. Load the folder itself if that is not meant.`,
        ]
      : [];
  }

  /** Paths that the repository holds and this load does not bring: of the module, as far as it can be told. */
  async #knownPaths(comparison: LoadComparison, paths: readonly string[]): Promise<string[]> {
    if (comparison.removed.length > 0) return comparison.removed;
    if (comparison.currentVersion === null) return [];
    const ours = new Set(paths);
    const known: string[] = [];
    for await (const file of this.#hub.allFiles({ signal: this.#signal }))
      if (file.module === this.#request.module.id && !ours.has(file.path)) known.push(file.path);
    return known;
  }

  async #confirm(warnings: readonly string[]): Promise<void> {
    if (this.#options.yes === true) return;
    if (!canAsk()) {
      throw new LockstepError(
        "CONFIRMATION_REQUIRED",
        `${this.#name()} would change the repository, and nobody can be asked`,
        {
          hint: "Nothing was loaded. Give --yes to load without a question, or --dry-run to only look.",
        },
      );
    }
    const question = warnings.length > 0 ? "Load all the same?" : "Load this?";
    if (await askYesNo(question, this.#signal)) return;
    throw new LockstepError("CANCELLED", "not loaded, as you wish", { hint: "Nothing was changed." });
  }

  async #send(scan: Scan, comparison: LoadComparison, pool: WorkerPool): Promise<LoadResult> {
    const missing = new Set(comparison.missing);
    // Of equal contents one travels.
    const travelling = this.#files.filter((file) => missing.delete(file.sha256));
    const bytesTotal = travelling.reduce((sum, file) => sum + file.size, 0);
    const silent = this.#output.quiet || travelling.length === 0;
    const progress = silent ? null : new Progress("loading", this.#output.remarks, systemClock);
    let done = 0;
    let isAllGiven = false;
    const parts = async function* () {
      for await (const { part, decodedBytes } of encodeContents(scan.base, travelling, pool, signal)) {
        yield part;
        done += decodedBytes;
      }
      isAllGiven = true;
    };
    const signal = this.#signal;
    try {
      const result = await this.#hub.load(this.#request, parts(), {
        signal,
        onProgress: ({ contents }) =>
          progress?.update({ bytes: done, bytesTotal, files: contents, filesTotal: travelling.length }),
      });
      progress?.update({ bytes: done, bytesTotal, files: travelling.length, filesTotal: travelling.length });
      progress?.finish();
      return result;
    } catch (error) {
      progress?.finish(null);
      throw isAllGiven ? unanswered(error) : error;
    }
  }

  #tell(result: LoadResult, revision: number | null): void {
    const { added, changed, removed, equal, contentBytes, storedBytes } = result;
    this.#output.note(
      `${this.#name()}: ${formatCount(added)} added, ${formatCount(changed)} changed, ${formatCount(removed)} removed, ` +
        `${formatCount(equal)} equal; ` +
        `${formatBytes(contentBytes)} of new content, ${formatBytes(storedBytes)} stored`,
    );
    if (!result.changes) this.#output.line(`software revision ${revision} (nothing changed)`);
    else if (revision === null)
      this.#output.line(`load ${result.load} (the software revision was ${result.revisionBefore})`);
    else this.#output.line(`software revision ${revision}`);
  }

  #name(): string {
    return `${this.#request.module.id} ${this.#request.module.version}`;
  }

  /** The document of `--json`; see docs/reference/commands.md. */
  #document(
    comparison: LoadComparison,
    summary: LoadSummary,
    warnings: readonly string[],
    result: LoadResult | null,
    revision: number | null,
  ): Record<string, unknown> {
    const { module, kind, files } = this.#request;
    const verbose = this.#options.verbose === true;
    return {
      module: module.id,
      version: module.version,
      kind,
      loaded: result !== null,
      load: result?.load ?? null,
      revision,
      revisionBefore: result?.revisionBefore ?? null,
      changes: result?.changes ?? summary.changes,
      statuses: summary.counts,
      removed: comparison.removed,
      attributeChanges: comparison.attributeChanges,
      undistributed: comparison.undistributed,
      contents: result?.contents ?? null,
      contentBytes: result?.contentBytes ?? null,
      storedBytes: result?.storedBytes ?? null,
      notices: [...comparison.notices, ...warnings],
      ...(verbose
        ? {
            files: files.map(({ path, size }, index) => ({ path, size, status: comparison.statuses[index] })),
          }
        : {}),
    };
  }
}

/** What ended the wait for the hub's answer, when it has everything: it may have committed the load, or still do it. */
function unanswered(error: unknown): unknown {
  if (!isLockstepError(error, "INTERRUPTED", "HUB_UNREACHABLE")) return error;
  return retold(
    error,
    `everything was sent, and the hub may have taken it: ${error.message}`,
    "lockstep revision list shows whether it has. Loading the same again does no harm; lockstep revision revert N takes it back.",
  );
}

function toRequest(
  files: readonly DigestedFile[],
  description: LoadDescription,
  options: LoadOptions,
): LoadRequest {
  return {
    module: description.module,
    kind: description.kind,
    note: options.note ?? null,
    declared: description.declared,
    files: files.map(({ path, size, sha256, mode }) => ({
      path,
      size,
      sha256,
      mode,
      ...description.attributes(path),
    })),
    allowDowngrade: options.yes === true,
  };
}

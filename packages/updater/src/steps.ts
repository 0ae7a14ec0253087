import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { FileEntry, Sha256 } from "@lockstep/core";
import { counted } from "@lockstep/core";
import {
  type ByteSource,
  type Content,
  FileSources,
  readStep,
  type StepPart,
  stepContents,
} from "@lockstep/delta";
import { isLockstepError, LockstepError } from "@lockstep/protocol/wire";
import { Persistence } from "./content-retry.ts";
import type { StagingTask, StagingTotals, WantedContent } from "./contents.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded, ioFailure } from "./io-failure.ts";

/**
 * Contents made of what is installed, by a step: for each machine role and package the hub has one object that leads from
 * the manifest that is here to the new one, in a hundredth of the bytes or less.
 *
 * A step is asked for only where all that it can build on stands here unedited, so none is fetched in vain. Each content
 * that comes out is held against its digest; one that is wrong, or is in no step, is fetched whole like any other. That
 * steps are not there, or come too late, never stops an update.
 */
export interface StepSource {
  /** Digest of the manifest that is installed, and of the new one. */
  readonly from: Sha256;
  readonly to: Sha256;
  readonly fromEntries: readonly FileEntry[];
  readonly toEntries: readonly FileEntry[];
}

export interface StepTask extends StagingTask {
  readonly sources: readonly StepSource[];
  /** Somebody, or a program that is to start, waits for the update; not where an agent does it. */
  readonly isAttended: boolean;
  /** A file of the installation (relative) that has a content, unedited; null: there is none. */
  readonly findLocal: (sha256: Sha256) => string | null;
  /** What became of a step, for update.log. `reason` null: it was used. */
  readonly note: (reason: string | null, facts: Readonly<Record<string, number | string>>) => void;
}

/**
 * While a step is being made we wait as long as fetching everything whole would take on such a line, so that waiting
 * doubles the time at most on a slower one; never longer than that. Where nobody waits for us bytes count more than seconds.
 */
const ATTENDED = { bytesPerMs: 12_500, waitMsMax: 30_000 };
const UNATTENDED = { bytesPerMs: 1_250, waitMsMax: 120_000 };
/** What a hub holds an answer back at most. */
const ASKED_SECONDS_MAX = 30;
const BUSY_PAUSE_MS = 200;
const BUSY_PAUSE_MS_MAX = 5_000;
/** Below this a step saves nothing that anybody could notice. */
const WORTH_BYTES = 2 * 1024;
/** A step must bring most of what it holds. */
const SHARE_MIN = 0.5;

/** Makes what can be made. Returns the contents that have come to the store of partial contents. Throws INTERRUPTED, INSTALLATION_*. */
export async function takeSteps(
  task: StepTask,
  wanted: readonly WantedContent[],
  totals: StagingTotals,
): Promise<ReadonlySet<Sha256>> {
  const taken = new Set<Sha256>();
  const open = wanted.filter(({ sha256, local }) => local === null && !task.partial.hasWhole(sha256));
  const missing = new Map(open.map((content) => [content.sha256, content]));
  for (const source of task.sources) {
    throwIfInterrupted(task.signal);
    const refusal = refuse(task, source, missing);
    if (refusal !== null) {
      if (refusal !== NOTHING) task.note(refusal, {});
      continue;
    }
    try {
      await takeStep(task, source, missing, totals, taken);
    } catch (error) {
      if (!isStepFailure(error)) throw error;
      task.note(error.message, { code: error.code });
    }
  }
  return taken;
}

const NOTHING = "nothing of it is needed";

/** Where a step is on its way, and where it stands when it has come whole, until all of it is applied. */
function stepPaths(task: StepTask, { from, to }: StepSource): { coming: string; whole: string } {
  const coming = join(task.paths.partial, `step-${from}-${to}`);
  return { coming, whole: `${coming}-whole` };
}

/** Why a step is not even asked for, or null. */
function refuse(
  task: StepTask,
  source: StepSource,
  missing: ReadonlyMap<Sha256, WantedContent>,
): string | null {
  const { fromEntries, toEntries } = source;
  const { results } = stepContents(fromEntries, toEntries);
  const bytesOf = (contents: readonly Content[]) => contents.reduce((sum, { size }) => sum + size, 0);
  const needed = bytesOf(results.filter(({ sha256 }) => missing.has(sha256)));
  if (needed < WORTH_BYTES) return NOTHING;
  // One that is here whole costs nothing more: a run was ended while it was applied.
  if (needed < SHARE_MIN * bytesOf(results) && !existsSync(stepPaths(task, source).whole))
    return "most of what it holds is here already";
  const after = new Map(toEntries.map((entry) => [entry.path, entry.sha256]));
  const absent = fromEntries.find(
    ({ path, sha256 }) => after.get(path) !== sha256 && task.findLocal(sha256) === null,
  );
  return absent === undefined ? null : `${absent.path} is not here as it was installed`;
}

/** What makes an update go on without steps. A broken connection too: fetching the contents meets it again. */
function isStepFailure(error: unknown): error is LockstepError {
  return isLockstepError(
    error,
    "DELTA_INVALID",
    "HUB_BUSY",
    "HUB_UNREACHABLE",
    "HUB_INTERNAL",
    "HUB_ANSWER_INVALID",
    "DATABASE_SCHEMA_OLDER",
  );
}

async function takeStep(
  task: StepTask,
  source: StepSource,
  missing: Map<Sha256, WantedContent>,
  totals: StagingTotals,
  taken: Set<Sha256>,
): Promise<void> {
  const { coming, whole } = stepPaths(task, source);
  const before = totals.receivedBytes;
  if (!existsSync(whole)) {
    if (!(await download(task, source, coming, missing, totals))) {
      task.note("the hub has no step, or has not made it yet", {});
      return;
    }
    guarded(whole, "writing", () => renameSync(coming, whole));
  }
  const files = new FileSources((path) => guarded(path, "reading", () => openSync(path, "r")));
  const { size } = guarded(whole, "looking at", () => statSync(whole));
  let wrong = 0;
  let results = 0;
  try {
    for (const part of readStep(source.fromEntries, source.toEntries, files.source(whole, size))) {
      await nextTurn();
      throwIfInterrupted(task.signal);
      if (!part.results.some(({ sha256 }) => missing.has(sha256))) continue;
      for (const { sha256, size } of applyPart(task, part)) {
        if (!missing.delete(sha256)) continue;
        taken.add(sha256);
        results++;
        task.meter.add(1, size);
      }
      wrong += part.results.filter(({ sha256 }) => missing.has(sha256)).length;
    }
  } finally {
    files.close();
    guarded(whole, "removing", () => rmSync(whole, { force: true }));
  }
  task.note(
    wrong === 0
      ? null
      : `${counted(wrong, "content")} did not come out right and ${wrong === 1 ? "is" : "are"} fetched whole`,
    {
      bytes: totals.receivedBytes - before,
      contents: results,
    },
  );
}

/** Brings the step here, and goes on where it was cut. False: there is none for us now. */
async function download(
  task: StepTask,
  source: StepSource,
  path: string,
  missing: ReadonlyMap<Sha256, WantedContent>,
  totals: StagingTotals,
): Promise<boolean> {
  const whole = [...missing.values()].reduce((sum, { size }) => sum + size, 0);
  const { bytesPerMs, waitMsMax } = task.isAttended ? ATTENDED : UNATTENDED;
  const until = task.clock.monotonic() + Math.min(waitMsMax, whole / bytesPerMs);
  const persistence = new Persistence(task.clock, task.signal, task.client);
  const here = () => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  let most = here();
  for (let pauseMs = BUSY_PAUSE_MS; ; ) {
    throwIfInterrupted(task.signal);
    const leftMs = Math.max(0, until - task.clock.monotonic());
    try {
      return await downloadOnce(task, source, path, { bytesMax: whole, leftMs }, totals);
    } catch (error) {
      if (isLockstepError(error, "HUB_BUSY")) {
        // It has waited as long as it was asked to, in whole seconds.
        if (until - task.clock.monotonic() < 1_000) return false;
        await task.clock.sleep(pauseMs, task.signal);
        pauseMs = Math.min(2 * pauseMs, BUSY_PAUSE_MS_MAX);
        continue;
      }
      if (here() > most) persistence.progress();
      most = Math.max(most, here());
      await persistence.after(error);
    }
  }
}

async function downloadOnce(
  task: StepTask,
  { from, to }: StepSource,
  path: string,
  { bytesMax, leftMs }: { bytesMax: number; leftMs: number },
  totals: StagingTotals,
): Promise<boolean> {
  const file = guarded(path, "writing", () => openSync(path, "a+", 0o600));
  try {
    const here = fstatSync(file).size;
    totals.requests++;
    const waitSeconds = Math.min(ASKED_SECONDS_MAX, Math.floor(leftMs / 1000));
    const answer = await task.client.step(from, to, { signal: task.signal, offset: here, waitSeconds });
    if (answer === null) {
      rmSync(path, { force: true });
      return false;
    }
    ftruncateSync(file, answer.offset);
    let position = answer.offset;
    for await (const chunk of answer.chunks) {
      totals.receivedBytes += chunk.length;
      position += chunk.length;
      if (position > bytesMax) throw tooLong(bytesMax);
      writeSync(file, chunk);
    }
    return true;
  } catch (error) {
    if (isLockstepError(error, "HUB_ANSWER_INVALID")) rmSync(path, { force: true });
    throw ioFailure(error, path, "writing");
  } finally {
    closeSync(file);
  }
}

function tooLong(bytesMax: number): LockstepError {
  return new LockstepError("HUB_ANSWER_INVALID", "the hub's step is longer than what it stands for", {
    expected: `at most ${bytesMax} bytes`,
    hint: "The contents are fetched whole instead. Look at the hub's log.",
  });
}

/** Makes the contents of one part; returns those that are right. */
function applyPart(task: StepTask, part: StepPart): Content[] {
  const files = new FileSources((path) => guarded(path, "reading", () => openSync(path, "r")));
  const open = ({ sha256, size }: Content): ByteSource => {
    const found = task.findLocal(sha256);
    if (found === null) throw new LockstepError("DELTA_INVALID", `the base ${sha256} is not here`);
    return files.source(join(task.paths.root, found), size);
  };
  const sink = new ResultSink(task, part.results);
  try {
    part.apply(open, (bytes) => sink.take(bytes));
    return sink.end();
  } catch (error) {
    sink.close();
    throw error;
  } finally {
    files.close();
  }
}

/** Takes the results as they come, one after the other, and keeps those that have their digest. */
class ResultSink {
  readonly #task: StepTask;
  readonly #results: readonly Content[];
  readonly #right: Content[] = [];
  #at = 0;
  #left = 0;
  #hash: Hash = createHash("sha256");
  #file: number | null = null;

  constructor(task: StepTask, results: readonly Content[]) {
    this.#task = task;
    this.#results = results;
  }

  take(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const content = this.#results[this.#at];
      if (content === undefined)
        throw new LockstepError("DELTA_INVALID", "a part of a step makes more than it says");
      if (this.#file === null) this.#begin(content);
      const piece = bytes.subarray(at, at + this.#left);
      this.#write(piece);
      at += piece.length;
      if (this.#left === 0) this.#finish(content);
    }
  }

  /** The contents that came out right. */
  end(): Content[] {
    if (this.#at !== this.#results.length)
      throw new LockstepError("DELTA_INVALID", "a part of a step makes less than it says");
    return this.#right;
  }

  close(): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }

  #path(content: Content): string {
    return `${this.#task.partial.wholePath(content.sha256)}.making`;
  }

  #begin(content: Content): void {
    const path = this.#path(content);
    this.#file = guarded(path, "writing", () => openSync(path, "w", 0o600));
    this.#left = content.size;
    this.#hash = createHash("sha256");
  }

  #write(piece: Uint8Array): void {
    const file = this.#file;
    if (file === null) return;
    this.#hash.update(piece);
    guarded(this.#task.paths.partial, "writing", () => {
      for (let done = 0; done < piece.length; ) done += writeSync(file, piece, done);
    });
    this.#left -= piece.length;
  }

  #finish(content: Content): void {
    this.close();
    this.#at++;
    const path = this.#path(content);
    guarded(path, "writing", () => {
      if (this.#hash.digest("hex") !== content.sha256) rmSync(path, { force: true });
      else {
        renameSync(path, this.#task.partial.wholePath(content.sha256));
        this.#right.push(content);
      }
    });
  }
}

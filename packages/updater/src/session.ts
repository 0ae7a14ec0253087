import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import type { EditsPolicy } from "@lockstep/core";
import { LOCK_RENEW_MS } from "@lockstep/core";
import { type Clock, systemClock } from "@lockstep/platform";
import type { RevisionDocument } from "@lockstep/protocol/wire";
import { runIn } from "./hand-over.ts";
import { connectHub, type HubAccess } from "./hub-access.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { guarded, unnamedIoFailure } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { clearLeftovers } from "./leftovers.ts";
import { type HeldLock, lockedError, tryLock } from "./lock-file.ts";
import type { ProgressListener } from "./progress.ts";
import { recoverLocked } from "./recovery.ts";
import { describeProblem } from "./report.ts";
import type { Choice, InitialInstallation, RunHost, RunRequest, RunResult } from "./run-types.ts";
import { formatInstalled } from "./signed-known.ts";
import type { Allowed } from "./trust.ts";
import { isArchiveFault, obtainArchive, pruneArchives, qualify, type UpdaterCopy } from "./update-archive.ts";

/** What every command that changes an installation is given. */
export interface SessionOptions {
  readonly access: HubAccess;
  readonly clock?: Clock;
  readonly progress?: ProgressListener;
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for another update that works there; 0: not at all. */
  readonly lockWaitMs?: number;
  /** False: the running updater does the work, whatever Update.zip holds. */
  readonly selfUpdate?: boolean;
}

export interface Session {
  readonly paths: InstallationPaths;
  readonly host: RunHost;
}

const LOCK_POLL_MS = 500;

/**
 * Does a piece of work with the lock of an installation, after finishing what an interrupted update left.
 * Throws INSTALLATION_LOCKED, INSTALLATION_NOT_WRITABLE, INSTALLATION_DAMAGED, and what the work throws.
 */
export async function withInstallation<T>(
  paths: InstallationPaths,
  options: SessionOptions,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const clock = options.clock ?? systemClock;
  const progress = options.progress ?? (() => {});
  const lock = await acquire(paths, options, clock, progress);
  const renewal = setInterval(() => {
    try {
      lock.renew();
    } catch {
      // The directory cannot be written just now; two hours of that are needed for harm.
    }
  }, LOCK_RENEW_MS);
  renewal.unref();
  try {
    const recovered = await recoverLocked(paths, lock, { environment: options.access.environment, clock });
    if (recovered.kind === "finished")
      progress({ kind: "notice", message: `an interrupted update to revision ${recovered.to} was finished` });
    if (recovered.kind === "rolled-back")
      progress({ kind: "notice", message: `an interrupted update was taken back: ${recovered.reason}` });
    clearLeftovers(paths, clock.now());
    return await work({
      paths,
      host: { access: options.access, clock, lock, progress, signal: options.signal },
    });
  } catch (error) {
    throw unnamedIoFailure(error, paths.root);
  } finally {
    clearInterval(renewal);
    lock.release();
  }
}

async function acquire(
  paths: InstallationPaths,
  options: SessionOptions,
  clock: Clock,
  progress: ProgressListener,
): Promise<HeldLock> {
  const until = clock.monotonic() + (options.lockWaitMs ?? 0);
  let told = false;
  while (true) {
    const attempt = tryLock(paths, clock);
    if (attempt.kind === "acquired") {
      if (attempt.ignored !== null)
        progress({
          kind: "notice",
          message: `a left-over update.lock was ignored (${LEFT_OVER[attempt.ignored]})`,
        });
      return attempt.lock;
    }
    if (clock.monotonic() >= until) throw lockedError(paths, attempt);
    if (!told) progress({ kind: "phase", phase: "wait", detail: "waiting for another update to end" });
    told = true;
    await clock.sleep(LOCK_POLL_MS, options.signal);
    throwIfInterrupted(options.signal);
  }
}

const LEFT_OVER = {
  age: "it was not renewed for two hours",
  dead: "its processes are gone",
  unreadable: "it could not be read",
};

/** One run to a software revision, by the updater of that revision where it can be had. */
export async function runToRevision(
  session: Session,
  allowed: Allowed,
  details: {
    readonly initial: InitialInstallation | null;
    readonly selection?: Choice;
    readonly hubUrl: Parameters<typeof connectHub>[0];
    readonly edits: EditsPolicy | null;
    readonly trigger: RunRequest["trigger"];
    readonly selfUpdate: boolean;
  },
): Promise<RunResult> {
  const { paths, host } = session;
  const startedAt = host.clock.now();
  const { trustStore } = await import("./trust.ts");
  // The process that carries the run out believes what is signed, and not what it is told.
  await trustStore(paths).writeRecord("goal", allowed.bytes);
  for (const notice of allowed.notices) tell(session, notice);
  const { document } = allowed;
  const copy = await findUpdater(session, document, details.hubUrl);
  const usable = details.selfUpdate ? await demandQualified(session, copy) : null;
  const result = await runIn(
    usable,
    {
      format: "lockstep-run/1",
      directory: paths.root,
      mode: "update",
      revision: document.number,
      initial: details.initial,
      ...(details.selection === undefined ? {} : { selection: details.selection }),
      edits: details.edits,
      archive: copy?.directory ?? null,
      run: newRunId(startedAt),
      startedAt,
      trigger: details.trigger,
      allowedBy: allowed.by,
    },
    host,
  );
  await recordInstalled(session, document);
  pruneArchives(paths, document.updateArchive?.sha256 ?? null);
  return result;
}

/**
 * By its number alone nobody could tell whether it is shown the same later (signed-known.ts). The run is over: what fails
 * here is told, and fails nothing; until the next run the goal says the same.
 */
async function recordInstalled(session: Session, { number, digest }: RevisionDocument): Promise<void> {
  const { trustStore } = await import("./trust.ts");
  try {
    await trustStore(session.paths).writeRecord("installed", formatInstalled(number, digest));
  } catch (error) {
    tell(
      session,
      `under which digest revision ${number} was signed is not written down: ${describeProblem(error)}`,
    );
  }
}

/** Short, and ordered by time: it stands in every record of update.log. */
export function newRunId(startedAt: number): string {
  return `${startedAt.toString(36)}-${randomUUID().slice(0, 4)}`;
}

async function findUpdater(
  session: Session,
  document: RevisionDocument,
  hub: Parameters<typeof connectHub>[0],
): Promise<UpdaterCopy | null> {
  const { paths, host } = session;
  if (document.updateArchive === null) return null;
  host.progress({ kind: "phase", phase: "updater", detail: "making the updater ready" });
  const client = await connectHub(hub, host.access, paths);
  const wanted = document.updateArchive;
  const obtain = () => obtainArchive(client, paths, wanted, host.clock, host.signal);
  try {
    return await obtain().catch(async (error: unknown) => {
      if (host.signal?.aborted === true || !client.leaveRelay(error)) throw error;
      return await obtain();
    });
  } catch (error) {
    if (!isArchiveFault(error)) throw error;
    tell(
      session,
      `Update.zip of revision ${document.number} cannot be used, so this updater does the work without its plug-ins: ${describeProblem(error)}`,
    );
    return null;
  } finally {
    await client.close();
  }
}

async function demandQualified(session: Session, copy: UpdaterCopy | null): Promise<UpdaterCopy | null> {
  if (copy === null) return null;
  const { passed, problem } = await qualify(copy, session.paths);
  if (passed) return copy;
  tell(
    session,
    `the updater ${copy.version} of Update.zip failed its self-test, so this one does the work: ${problem}`,
  );
  return null;
}

function tell(session: Session, message: string): void {
  session.host.progress({ kind: "notice", message });
}

/**
 * Makes the directory of a new installation. Returns the topmost directory that it made, null where all were there. Throws
 * INSTALLATION_NOT_WRITABLE and its kin.
 */
export function makeDirectory(directory: string): string | null {
  return guarded(directory, "making", () => mkdirSync(directory, { recursive: true })) ?? null;
}

import type { HubClient, SemaphoreAnswer } from "@lockstep/client";
import { type EditsPolicy, readTransferSettings } from "@lockstep/core";
import { type Clock, systemClock } from "@lockstep/platform";
import { isLockstepError, judgeMark, LockstepError, type Semaphore } from "@lockstep/protocol/wire";
import { lookWithoutKeeping } from "./check.ts";
import { connectHub } from "./hub-access.ts";
import {
  type InstallHead,
  isUnfinished,
  locate,
  readInstalledRevision,
  readInstallHead,
} from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { isLeftBehind } from "./lock-file.ts";
import type { Subject } from "./orders.ts";
import { describeProblem, report, reportMs } from "./report.ts";
import type { RunRequest, RunResult } from "./run-types.ts";
import { runToRevision, type Session, type SessionOptions, withInstallation } from "./session.ts";
import { readKnownSigned } from "./signed-known.ts";
import { throttled } from "./transfer-throttle.ts";
import type { Allowed } from "./trust.ts";
import { UpdateLog } from "./update-log.ts";

export interface UpdateOptions extends SessionOptions {
  /** Another policy for local edits, for this run alone. */
  readonly edits?: EditsPolicy | undefined;
  readonly trigger?: RunRequest["trigger"];
  /** What the hub announced, for a caller that has just asked. */
  readonly announced?: Announced;
  /** Whatever time of the day large transfers are for. */
  readonly now?: boolean | undefined;
}

/** The semaphore as it was seen, and when by the monotonic clock. */
export interface Announced {
  readonly semaphore: Semaphore;
  readonly atMs: number;
}

/** An announcement is as good as a new one for so long: what is signed is looked at anew in any case. */
const ANNOUNCED_MS_MAX = 5_000;

/** An update that an off switch stopped (domain 1.7), as told to automatic runs alone. */
export interface DisabledUpdate {
  readonly kind: "disabled";
  readonly by: "hub" | "installation";
  readonly from: number | null;
  readonly to: number;
}

export type UpdateResult =
  | RunResult
  | DisabledUpdate
  /** Equal revisions: one request, nothing read, nothing written, unless the hub says that other keys or contents are signed. */
  | { readonly kind: "already-in-step"; readonly revision: number };

/**
 * Brings an installation to the current software revision (S25, S26). Returns when it is there, or was before.
 *
 * A manual run goes on although automatic updates are switched off, and says so; automatic ones obey. Throws the errors
 * of `run`, INSTALLATION_LOCKED, and what a hub call throws; the installation then is as it was.
 */
export async function update(directory: string, options: UpdateOptions): Promise<UpdateResult> {
  const paths = locate(directory);
  const clock = options.clock ?? systemClock;
  let { announced } = options;
  // What was interrupted is finished first, by whoever has the lock: before that there may not even be a state to read. A
  // lock that a killed process left keeps users who may not look into our private directory from starting anything.
  if (!isUnfinished(paths) && !isLeftBehind(paths, clock) && announced === undefined) {
    // Most runs find nothing to do; these take no lock and leave no trace.
    const head = readInstallHead(paths);
    const installed = readInstalledRevision(paths)?.revision ?? null;
    const client = await connectHub(head.hub, options.access, paths);
    try {
      const answer = await client.semaphore(installed, { signal: options.signal, installation: head.id });
      if (answer.kind === "equal") {
        if (judgeMark(answer.signed, readKnownSigned(paths, installed)) !== "as-known")
          await lookAtOther(client, directory, { installation: head.id, installed }, options);
        return { kind: "already-in-step", revision: answer.revision };
      }
      announced = { semaphore: answer.semaphore, atMs: clock.monotonic() };
    } finally {
      await client.close();
    }
  }
  const known = announced === undefined ? options : { ...options, announced };
  return await withInstallation(paths, options, async (session) => await updateLocked(session, known));
}

/** The same for a caller that holds the lock. */
export async function updateLocked(session: Session, options: UpdateOptions): Promise<UpdateResult> {
  const { paths, host } = session;
  const head = readInstallHead(paths);
  const installed = readInstalledRevision(paths)?.revision ?? null;
  const client = await connectHub(head.hub, options.access, paths);
  try {
    host.progress({ kind: "phase", phase: "check", detail: "asking the hub" });
    const known = recent(options.announced, host.clock);
    const answer =
      known ?? (await client.semaphore(installed, { signal: options.signal, installation: head.id }));
    const semaphore = answer.kind === "equal" ? null : answer.semaphore;
    if (semaphore === null || semaphore.revision === installed) {
      if (judgeMark(answer.signed, readKnownSigned(paths, installed)) !== "as-known")
        await look(session, client, head, installed ?? 0);
      return { kind: "already-in-step", revision: installed ?? 0 };
    }
    const trigger = options.trigger ?? "manual";
    const off = !semaphore.autoUpdate ? "hub" : !head.settings.autoUpdate ? "installation" : null;
    if (off !== null) {
      if (trigger !== "manual") return { kind: "disabled", by: off, from: installed, to: semaphore.revision };
      host.progress({
        kind: "notice",
        message: `automatic updates are switched off ${OFF[off]}; this one was asked for`,
      });
    }
    if (semaphore.revision === 0)
      throw new LockstepError("REVISION_UNKNOWN", "the hub has no software revision yet", {
        expected: "a software revision of 1 or higher",
        found: 0,
        hint: "Load a release first, or wait until the DBQueue has worked it off. Nothing was changed.",
      });
    const order = { hub: readTransferSettings(semaphore.transfer), now: options.now === true };
    const access = throttled({ ...host.access, transfer: order }, head.settings, host.clock);
    const allowed = await demandAllowed(session, client, head, semaphore.revision);
    if (allowed.document.number === installed) return { kind: "already-in-step", revision: installed };
    const limited: Session = { paths, host: { ...host, access } };
    return await runToRevision(limited, allowed, {
      initial: null,
      hubUrl: head.hub,
      edits: options.edits ?? null,
      trigger,
      selfUpdate: options.selfUpdate ?? true,
    });
  } finally {
    await client.close();
  }
}

/** Who waited for the lock has an old one. */
function recent(announced: Announced | undefined, clock: Clock): SemaphoreAnswer | null {
  if (announced === undefined || clock.monotonic() - announced.atMs > ANNOUNCED_MS_MAX) return null;
  return { kind: "different", semaphore: announced.semaphore, signed: null };
}

/**
 * The hub says that something else is signed than what is known here, though the number is the same: looks at once. Where this
 * user may not write, or another update works there, a new root waits for the next look; another content is told all the same.
 */
async function lookAtOther(
  client: HubClient,
  directory: string,
  subject: Subject,
  options: SessionOptions,
): Promise<void> {
  try {
    await lookAtSignatures(directory, subject.installed ?? 0, options);
  } catch (error) {
    if (!isLockstepError(error, "INSTALLATION_LOCKED", "INSTALLATION_NOT_WRITABLE")) throw error;
    await lookWithoutKeeping(client, locate(directory), subject, options.signal);
  }
}

/**
 * Verifies what is signed now although the hub announces nothing new, and raises the alarm when that does not hold or is not
 * what is announced. Throws the TRUST_* codes.
 */
export async function lookAtSignatures(
  directory: string,
  announced: number,
  options: SessionOptions,
): Promise<void> {
  await withInstallation(locate(directory), options, async (session) => {
    const head = readInstallHead(session.paths);
    const client = await connectHub(head.hub, options.access, session.paths);
    try {
      await look(session, client, head, announced);
    } finally {
      await client.close();
    }
  });
}

/** The same for a caller that holds the lock. What is trusted from now on and was not before is told, and stands in update.log. */
async function look(
  session: Session,
  client: HubClient,
  head: InstallHead,
  announced: number,
): Promise<void> {
  const { paths, host } = session;
  const before = readKnownSigned(paths, null).root;
  const { notices } = await demandAllowed(session, client, head, announced);
  const { root } = readKnownSigned(paths, null);
  const news =
    root === before ? notices : [...notices, `root version ${root} is trusted (before: ${before})`];
  if (news.length === 0) return;
  const log = new UpdateLog(paths, host.clock);
  for (const message of news) {
    host.progress({ kind: "notice", message });
    log.note("trust", null, "ok", message);
  }
  log.flush();
}

/**
 * What is signed now. That nothing acceptable is signed is an alarm, and told where somebody looks: in update.log and at the
 * hub. The installation goes on with what it has.
 */
async function demandAllowed(
  { paths, host }: Session,
  client: HubClient,
  head: InstallHead,
  announced: number,
): Promise<Allowed> {
  const { demandAnnounced, demandSigned, trustStore } = await import("./trust.ts");
  try {
    const installed = readInstalledRevision(paths)?.revision ?? null;
    const subject = { installation: head.id, installed };
    const allowed = await demandSigned(client, trustStore(paths), { ...host, subject });
    try {
      demandAnnounced(announced, allowed);
      return allowed;
    } catch (error) {
      if (!client.leaveRelay(error)) throw error;
    }
    // The announcement came from the relay, too.
    const own = await client.semaphore(null, { signal: host.signal, installation: head.id });
    const revision = own.kind === "different" ? own.semaphore.revision : own.revision;
    const again = await demandSigned(client, trustStore(paths), { ...host, subject });
    demandAnnounced(revision, again);
    return again;
  } catch (error) {
    if (isLockstepError(error) && /^(TRUST_|ORDER_|DOWNGRADE_)/.test(error.code))
      await raiseAlarm(paths, host.clock, client, head, error);
    throw error;
  }
}

async function raiseAlarm(
  paths: InstallationPaths,
  clock: Clock,
  client: HubClient,
  head: InstallHead,
  error: LockstepError,
): Promise<void> {
  const problem = describeProblem(error);
  const log = new UpdateLog(paths, clock);
  log.note("trust", null, "failed", problem, { expected: error.expected, found: error.found });
  log.flush();
  const revision = readInstalledRevision(paths)?.revision ?? null;
  await report(client, paths.root, head, { outcome: "failed", revision, problem });
}

const OFF = { hub: "at the hub (Common/AutoUpdate)", installation: "in this installation" };

/** Tells the hub that an installation was left as it is, and why. Best effort. */
export async function reportPostponed(
  directory: string,
  options: SessionOptions,
  why: string,
): Promise<void> {
  const paths = locate(directory);
  const head = readInstallHead(paths);
  const client = await connectHub(head.hub, options.access, paths);
  const revision = readInstalledRevision(paths)?.revision ?? null;
  const outcome = { outcome: "postponed", revision, problem: why } as const;
  await report(client, paths.root, head, outcome, reportMs("launch"));
  await client.close();
}

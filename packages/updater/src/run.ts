import type { HubClient } from "@lockstep/client";
import { counted, type PlanOperation } from "@lockstep/core";
import type { FileStat } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import {
  type ApplyContext,
  beginStaging,
  commit,
  demandSpace,
  forgetPrevious,
  type IndexBuilder,
  type Operation,
  type Staging,
  writeRevisionFile,
} from "./apply/index.ts";
import { dropBackups, makeBackups, pruneBackups } from "./backup.ts";
import { type StagingTotals, stageContents, wantedContents } from "./contents.ts";
import { connectHub } from "./hub-access.ts";
import {
  isUnfinished,
  locate,
  readInstalledRevision,
  readInstallHead,
  readInstallState,
} from "./installation.ts";
import { throwIfInterrupted } from "./interruption.ts";
import { unnamedIoFailure } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { keepManifests } from "./manifest-cache.ts";
import { nextIndex } from "./observe.ts";
import { PartialStore, salvage } from "./partial.ts";
import { type PluginContext, PluginHost } from "./plugin-host.ts";
import { type Goal, type Preparation, prepare } from "./preparation.ts";
import { ProgressMeter } from "./progress.ts";
import { applyContext, dropRunNote, recoverLocked, writeRunNote } from "./recovery.ts";
import { describeProblem, report, reportMs } from "./report.ts";
import { RolledBackError, refusePlan, reportedOutcome } from "./run-failure.ts";
import { KEPT_MAX, type RunHost, type RunRequest, type RunResult } from "./run-types.ts";
import { type ListDigest, type SeenStat, writeIndexFile } from "./stat-index.ts";
import { encodeInstallState, type StateBytes } from "./state-bytes.ts";
import { stepTask } from "./step-task.ts";
import { throttled } from "./transfer-throttle.ts";
import { UpdateLog } from "./update-log.ts";

/**
 * One run of the updater, from a software revision to an installation that is at it: prepare, fetch, verify, stage,
 * switch, record. It runs in the process of the unpacked updater, or in the one that was started where there is none.
 *
 * Until the commit comes into force nothing of the installation changes: an error or an interruption leaves it as it
 * was, and keeps what was fetched. After it the run goes to its end, whatever signal comes.
 */
export async function run(request: RunRequest, host: RunHost): Promise<RunResult> {
  const paths = locate(request.directory);
  const log = new UpdateLog(paths, host.clock, request.run);
  const steps = new Run(request, host, paths, log);
  try {
    return await steps.perform();
  } catch (error) {
    const failure = unnamedIoFailure(error, paths.root);
    await steps.fail(failure);
    throw failure;
  }
}

class Run {
  readonly #request: RunRequest;
  readonly #host: RunHost;
  readonly #paths: InstallationPaths;
  readonly #log: UpdateLog;
  readonly #apply: ApplyContext;
  readonly #notices: string[] = [];
  #client: HubClient | null = null;
  /** From here on the installation is at the new revision, and nothing may be told as a failure any more. */
  #holds = false;

  constructor(request: RunRequest, host: RunHost, paths: InstallationPaths, log: UpdateLog) {
    this.#request = request;
    this.#host = host;
    this.#paths = paths;
    this.#log = log;
    const warn = (message: string, fields: object = {}) =>
      log.note("notice", null, "skipped", `${message} ${JSON.stringify(fields)}`);
    this.#apply = applyContext(paths, host.clock, { info: () => {}, warn });
  }

  async perform(): Promise<RunResult> {
    const request = this.#request;
    await recoverLocked(this.#paths, this.#host.lock, {
      environment: this.#host.access.environment,
      clock: this.#host.clock,
    });
    const from = readInstalledRevision(this.#paths)?.revision ?? null;
    this.#log.note("begin", null, "ok", request.trigger, {
      from,
      to: request.revision,
      mode: modeOf(request),
      ...request.allowedBy,
    });
    const head = request.initial ?? readInstallHead(this.#paths);
    const access = throttled(this.#host.access, head.settings, this.#host.clock);
    this.#client = await connectHub(head.hub, access, this.#paths);
    const plugins =
      request.archive === null ? null : PluginHost.open(this.#paths, request.archive, this.#log);
    const prepared = await this.#prepare(from, plugins);
    for (const notice of prepared.notices) this.#notice(notice);
    refusePlan(prepared);
    const totals = await this.#carryOut(from, prepared, plugins);
    return await this.#conclude(from, prepared, totals);
  }

  async #prepare(from: number | null, plugins: PluginHost | null): Promise<Preparation> {
    const request = this.#request;
    const client = this.#hub();
    const { clock, progress, signal } = this.#host;
    let goal: Goal = { kind: "installed", revision: request.revision };
    if (request.mode === "update") {
      const document = await (await import("./trust.ts")).readGoal(this.#paths, clock, request.revision);
      const migrated = await this.#migrate(from, plugins);
      goal = { kind: "revision", document, initial: request.initial, ...migrated };
    }
    return await prepare({
      client,
      paths: this.#paths,
      goal,
      edits: request.edits,
      everything: request.mode === "repair",
      now: clock.now,
      monotonic: clock.monotonic,
      progress,
      signal,
    });
  }

  /** Lets plug-ins change what is chosen here, before anything is compared (behaviour 28). */
  async #migrate(
    from: number | null,
    plugins: PluginHost | null,
  ): Promise<{ roles: readonly string[] | null; packages: readonly string[] | null }> {
    const asked = this.#request.selection ?? { roles: null, packages: null };
    if (plugins === null || plugins.plugins.length === 0) return asked;
    this.#host.progress({
      kind: "phase",
      phase: "prepare",
      detail: "running the preparation of update plug-ins",
    });
    const { initial, selection } = this.#request;
    const chosen = initial ?? selection ?? rolesOf(readInstallState(this.#paths));
    const context: PluginContext = {
      from,
      to: this.#request.revision,
      roles: chosen.roles,
      packages: chosen.packages,
    };
    const { roles, packages } = await plugins.prepare(context);
    return { roles: roles ?? asked.roles, packages: packages ?? asked.packages };
  }

  async #carryOut(
    from: number | null,
    prepared: Preparation,
    plugins: PluginHost | null,
  ): Promise<{ totals: StagingTotals; switchMs: number }> {
    const { plan } = prepared;
    const goal = encodeInstallState(prepared.next);
    const changes = plan.operations.filter((operation) => isChange(operation));
    const sameState = prepared.former?.head === goal.head && prepared.former.list.equals(goal.list);
    if (changes.length === 0 && sameState) return await this.#onlyRevision(from, prepared, goal.list);

    this.#demandRoom(prepared, goal.bytes.length);
    throwIfInterrupted(this.#host.signal);
    const staging = await beginStaging(this.#apply);
    const numbers = new Map(changes.map((operation, n) => [operation.path, n]));
    const totals = await this.#stage(prepared, staging, numbers);
    const switchMs = await this.#switch(from, prepared, plugins, staging, numbers, goal);
    return { totals, switchMs };
  }

  /** The software revision differs, but nothing of it concerns this installation. */
  async #onlyRevision(
    from: number | null,
    prepared: Preparation,
    list: ListDigest,
  ): Promise<{ totals: StagingTotals; switchMs: number }> {
    const { revision, startedAt } = this.#request;
    if (from !== revision || this.#request.mode === "update")
      await writeRevisionFile(this.#apply, { revision, startedAt });
    this.#holds = true;
    this.#tidy(() => this.#writeIndex(prepared, list));
    return { totals: NOTHING_FETCHED, switchMs: 0 };
  }

  async #stage(
    prepared: Preparation,
    staging: Staging,
    numbers: ReadonlyMap<string, number>,
  ): Promise<StagingTotals> {
    const { clock, progress, signal } = this.#host;
    const { sums, operations } = prepared.plan;
    const wanted = wantedContents(operations, (operation) => numbers.get(operation.path) ?? -1, staging);
    const detail = `fetching ${counted(sums.fetchFiles, "content")}, ${sums.fetchBytes} bytes`;
    progress({ kind: "phase", phase: "fetch", detail });
    const totalsOf = { files: sums.fetchFiles, bytes: sums.fetchBytes };
    const task = {
      client: this.#hub(),
      paths: this.#paths,
      partial: new PartialStore(this.#paths),
      meter: new ProgressMeter(progress, "fetch", totalsOf, clock.monotonic),
      clock,
      signal,
      isAttended: this.#request.trigger !== "agent",
      ...stepTask(prepared, (reason, facts) =>
        this.#log.note("step", null, reason === null ? "ok" : "skipped", reason, facts),
      ),
    };
    try {
      return await stageContents(task, wanted);
    } catch (error) {
      // What is whole is kept for the next run.
      salvage(this.#paths);
      throw error;
    }
  }

  async #switch(
    from: number | null,
    prepared: Preparation,
    plugins: PluginHost | null,
    staging: Staging,
    numbers: ReadonlyMap<string, number>,
    goal: StateBytes,
  ): Promise<number> {
    const request = this.#request;
    const { next, plan } = prepared;
    const context: PluginContext = { from, to: request.revision, roles: next.roles, packages: next.packages };
    const changes = plan.operations.filter((operation) => isChange(operation));
    let backups: string | null = null;
    this.#host.progress({
      kind: "phase",
      phase: "switch",
      detail: "making the new files durable and switching",
    });
    let stopped = false;
    const stop = async () => {
      try {
        backups = await makeBackups(this.#paths, changes, from);
        if (plugins !== null) {
          stopped = true;
          await plugins.beforeSwitch(context);
        }
        throwIfInterrupted(this.#host.signal);
        this.#demandLock();
        if (request.selection !== undefined) await forgetPrevious(this.#apply);
        const { run: name, archive } = request;
        const { roles, packages } = next;
        writeRunNote(this.#paths, { run: name, archive, from, to: request.revision, roles, packages });
      } catch (error) {
        if (stopped && plugins !== null) await plugins.afterSwitchQuietly(context, "not-switched");
        stopped = false;
        dropBackups(backups);
        salvage(this.#paths);
        throw error;
      }
    };
    const afterSwitch = async () => {
      if (plugins !== null) await plugins.afterSwitch(context, "switched");
      return true;
    };
    const committing = commit(this.#apply, {
      staging,
      operations: changes.map((operation) => toApply(operation, numbers.get(operation.path) ?? -1)),
      state: goal.bytes,
      index: this.#indexBuilder(prepared, goal.list),
      from,
      to: request.revision,
      startedAt: request.startedAt,
      hooks: { stop, afterSwitch },
    });
    const result = await committing.catch(async (error: unknown) => {
      // Nothing was switched: what was stopped for it runs again. With a record in force nothing may run before recovery.
      if (stopped && plugins !== null && !isUnfinished(this.#paths))
        await plugins.afterSwitchQuietly(context, "not-switched");
      throw error;
    });
    dropRunNote(this.#paths);
    if (result.kind === "applied") {
      this.#holds = true;
      return result.switchMs;
    }
    this.#tidy(() => dropBackups(backups));
    if (plugins !== null) await plugins.afterSwitchQuietly(context, "rolled-back");
    throw new RolledBackError(result.reason, result.error);
  }

  #hub(): HubClient {
    if (this.#client === null) throw new TypeError("the hub is not connected yet");
    return this.#client;
  }

  #notice(message: string): void {
    this.#notices.push(message);
    this.#log.note("notice", null, "ok", message);
    this.#host.progress({ kind: "notice", message });
  }

  #flushLog(): void {
    const unwritten = this.#log.flush();
    if (unwritten !== null) this.#notice(`update.log is not complete: ${unwritten}`);
  }

  /** What only saves time or space later: its failure must not make an update that holds look like one that failed. */
  #tidy(act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#notice(`something was left for the next run to tidy up: ${describeProblem(error)}`);
    }
  }

  /** Everything that is staged stands beside the old files until the end; the largest content arrives compressed first. */
  #demandRoom(prepared: Preparation, stateBytes: number): void {
    const { sums, operations } = prepared.plan;
    let largest = 0;
    for (const operation of operations)
      if (operation.kind === "add" || operation.kind === "replace")
        largest = Math.max(largest, operation.source.kind === "hub" ? operation.entry.size : 0);
    const compressed = largest > COMPRESSED_ASIDE_MIN ? Math.ceil(largest / 2) : 0;
    demandSpace(this.#apply, sums.writeBytes + compressed + 2 * stateBytes);
  }

  #demandLock(): void {
    if (this.#host.lock.isOurs()) return;
    throw new LockstepError(
      "INSTALLATION_LOCKED",
      `the lock of ${this.#paths.root} was taken by somebody else`,
      {
        expected: this.#host.lock.token,
        found: "another update.lock",
        hint: "This run stood still for hours and was taken for dead. Nothing was changed; run it again.",
      },
    );
  }

  #indexBuilder(prepared: Preparation, list: ListDigest): IndexBuilder {
    return (stats) => {
      const at = this.#host.clock.now();
      const changed = new Map([...stats].map(([path, stat]) => [path, toSeen(stat)]));
      const { next, rows, observation, index } = prepared;
      return nextIndex(next.files, rows, observation, index, changed, at).format(list);
    };
  }

  /** Remembers what was learned by reading, where no commit does it. */
  #writeIndex(prepared: Preparation, list: ListDigest): void {
    if (prepared.observation.read === 0) return;
    const { next, rows, observation, index } = prepared;
    writeIndexFile(this.#paths, nextIndex(next.files, rows, observation, index, new Map(), 0).format(list));
  }

  async #conclude(
    from: number | null,
    prepared: Preparation,
    { totals, switchMs }: { totals: StagingTotals; switchMs: number },
  ): Promise<RunResult> {
    const { revision: to } = this.#request;
    const { plan, next, edits } = prepared;
    for (const remark of this.#hub().relayRemarks) this.#notice(remark);
    this.#host.progress({ kind: "phase", phase: "record", detail: "recording" });
    this.#tidy(() => new PartialStore(this.#paths).clear());
    this.#tidy(() => keepManifests(this.#paths, prepared.manifests));
    this.#tidy(() => pruneBackups(this.#paths));
    for (const operation of plan.operations) this.#noteOperation(operation);
    const changed = plan.operations.some(isChange) || from !== to;
    this.#log.note("end", null, "ok", null, {
      from,
      to,
      switchMs: Math.round(switchMs * 10) / 10,
      receivedBytes: totals.receivedBytes,
      requests: totals.requests,
      reused: totals.reused,
    });
    this.#flushLog();
    const kept = plan.operations.flatMap((operation) =>
      operation.kind === "keep" ? [{ path: operation.path, reason: operation.reason }] : [],
    );
    const edited = kept.filter(({ reason }) => reason !== "dropped");
    const problem =
      edits === "keep-and-report" && edited.length > 0
        ? `${edited.length} edited files were kept: ${edited
            .slice(0, 20)
            .map(({ path }) => path)
            .join(", ")}`
        : null;
    const outcome = { outcome: changed ? "updated" : "in-step", revision: to, problem } as const;
    await report(this.#hub(), this.#paths.root, next, outcome, reportMs(this.#request.trigger));
    await this.#leaveHub();
    return {
      kind: changed ? "updated" : "in-step",
      from,
      to,
      sums: plan.sums,
      kept: kept.slice(0, KEPT_MAX),
      switchMs,
      receivedBytes: totals.receivedBytes,
      notices: this.#notices,
    };
  }

  #noteOperation(operation: PlanOperation): void {
    const { kind, path, reason } = operation;
    const after = kind === "remove" ? null : operation.entry;
    const before = "found" in operation ? operation.found : null;
    this.#log.note(kind, path, kind === "keep" ? "skipped" : "ok", reason, {
      size: after?.size,
      sha256: after?.sha256,
      formerSize: before?.size,
      formerSha256: before?.sha256 ?? undefined,
      local: "local" in operation && operation.local !== "ours" ? operation.local : undefined,
    });
  }

  /** Notes and reports why a run did not reach its end. Never throws: the reason itself matters more. */
  async fail(error: unknown): Promise<void> {
    const rolledBack = error instanceof RolledBackError;
    const problem = describeProblem(error);
    try {
      const unfinished = isUnfinished(this.#paths);
      const outcome = rolledBack
        ? "rolled-back"
        : this.#holds
          ? "updated"
          : unfinished
            ? "unfinished"
            : "unchanged";
      this.#log.note("end", null, "failed", problem, { outcome });
      this.#log.flush();
    } catch {
      // The directory cannot be looked at; the caller tells it.
    }
    if (this.#client === null) return;
    try {
      const head = readInstallHead(this.#paths);
      const revision = readInstalledRevision(this.#paths)?.revision ?? null;
      const outcome = { outcome: reportedOutcome(error), revision, problem };
      await report(this.#client, this.#paths.root, head, outcome, reportMs(this.#request.trigger, error));
    } catch {
      // Not an installation yet, or not any more.
    }
    await this.#leaveHub();
  }

  async #leaveHub(): Promise<void> {
    // At the latest the connection ends with this process.
    await this.#client?.close().catch(() => {});
  }
}

const NOTHING_FETCHED: StagingTotals = { receivedBytes: 0, requests: 0, fetched: 0, reused: 0 };
const COMPRESSED_ASIDE_MIN = 1024 * 1024;

/** Whether an operation touches a file. */
export function isChange(operation: PlanOperation): boolean {
  return operation.kind === "add" || operation.kind === "replace" || operation.kind === "remove";
}

function toApply(operation: PlanOperation, n: number): Operation {
  if (operation.kind === "add" || operation.kind === "replace")
    return { n, kind: "put", path: operation.path, mode: operation.entry.mode };
  return { n, kind: "remove", path: operation.path };
}

/** The same numbers that an ordinary look gives, so that the two compare equal. */
function toSeen(stat: FileStat): SeenStat {
  return {
    size: stat.size,
    mtimeMs: toMs(stat.mtimeNs),
    ctimeMs: toMs(stat.ctimeNs),
    ino: Number(stat.ino),
  };
}

function toMs(ns: bigint): number {
  return Number(ns / 1_000_000_000n) * 1000 + Number(ns % 1_000_000_000n) / 1_000_000;
}

/** What the log calls a run. */
function modeOf({ mode, initial, selection }: RunRequest): string {
  return initial !== null ? "install" : selection !== undefined ? "configure" : mode;
}

function rolesOf(state: {
  readonly rolesChosen: readonly string[];
  readonly packagesChosen: readonly string[];
}) {
  return { roles: state.rolesChosen, packages: state.packagesChosen };
}

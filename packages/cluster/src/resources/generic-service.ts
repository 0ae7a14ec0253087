import { existsSync } from "node:fs";
import { join } from "node:path";
import type { LockstepError, ServiceWord } from "@lockstep/protocol/wire";
import { endServicesOf } from "../host/former-life.ts";
import type { HostedContext } from "../host/host-types.ts";
import type { LaunchedService, ServiceEnd, ServiceRun } from "../host/service-launcher.ts";
import { isSettledWithin } from "../host/time-limit.ts";
import { BARE_ENVIRONMENT } from "./bounded-command.ts";
import { readServiceSettings, type ServiceSettings } from "./generic-service-settings.ts";
import type { Resource, UndoCommand } from "./resource.ts";
import { probeService } from "./service-probe.ts";
import { ServiceWordFile } from "./service-word.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";
import { findSystemctl, SystemdUnit } from "./systemd-unit.ts";

/**
 * Any service: a program that the guard launches as its child, or a unit of systemd.
 *
 * As a child it is in the guard's hand, sees the virtual server as its machine (S2), and its end is known at once. A unit
 * of systemd belongs to systemd: the guard ends it by a command, it sees the node's name, and its end is found by the next
 * check. A hung service is told only by a probe; without one, alive is well.
 */
const PROBE_AGAIN_MS = 50;
const BUSY_MS = 1_000;
/** In an installation: there while an update is not finished (core/apply-record.ts). */
const COMMIT_RECORD = ".lockstep/commit.json";

/** Throws RESOURCE_SETTINGS. */
export function openGenericService(context: HostedContext): Resource {
  const { settings, faults } = readServiceSettings(context.definition.settings);
  refuseFaults(context.definition, faults);
  if (settings.what.kind !== "unit") return new ChildService(context, settings);
  const systemctl = findSystemctl();
  if (systemctl === null) refuseFaults(context.definition, ["unit: there is no systemctl on this node"]);
  return new UnitService(context, settings, new SystemdUnit(systemctl ?? "", settings.what.unit));
}

class ChildService implements Resource {
  /** The guard is its parent and needs to be told nothing. */
  readonly undo: readonly UndoCommand[] = [];
  readonly #context: HostedContext;
  readonly #settings: ServiceSettings;
  #service: LaunchedService | null = null;
  /** How it ended, if nobody asked it to. */
  #end: ServiceEnd | null = null;
  readonly #word: ServiceWordFile;
  /** The word that was read last, and since when it stands, on the clock of `performance`. */
  #said: { readonly word: ServiceWord | null; readonly since: number } = { word: null, since: 0 };

  constructor(context: HostedContext, settings: ServiceSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#word = new ServiceWordFile(context.directory);
  }

  async online(busy: () => void, calledOff: AbortSignal): Promise<void> {
    const { services, failed } = this.#context;
    this.#end = null;
    this.#said = { word: null, since: performance.now() };
    await this.#word.clear(this.#context.directory);
    const service = await services.launch(this.#run());
    this.#service = service;
    void service.ended.then((end) => {
      // One that was told to end, or one of before, says nothing.
      if (this.#service !== service) return;
      this.#service = null;
      this.#end = end;
      failed(`it ended by itself ${howOf(end)}`);
    });
    await this.#untilReady(service, busy, calledOff);
  }

  async offline(busy: () => void): Promise<void> {
    const service = this.#service;
    this.#service = null;
    if (service === null) return;
    service.signal(this.#settings.stopSignal);
    const reporting = setInterval(busy, BUSY_MS);
    const hasEnded = await isSettledWithin(service.ended, this.#settings.stopMs);
    clearInterval(reporting);
    if (!hasEnded) {
      this.#context.note(
        "killed",
        `it had not ended ${this.#settings.stopMs} ms after ${this.#settings.stopSignal}`,
      );
      await service.kill();
      await service.ended;
    }
  }

  async check(isThorough: boolean): Promise<string | null> {
    if (this.#service === null)
      return this.#end === null ? "it does not run" : `it ended by itself ${howOf(this.#end)}`;
    const { probe, probeMs, what, startMs, updateMs } = this.#settings;
    const { word, forMs } = await this.#hear();
    // Standing still for an update is maintenance (behaviour 75), but not for ever.
    if (word === "updating")
      return forMs <= updateMs
        ? null
        : `it has said for ${Math.round(forMs / 1000)} s that it updates itself`;
    if (what.kind === "job-service" && word === "starting" && forMs > startMs)
      return `it has not served for ${Math.round(forMs / 1000)} s`;
    if (!isThorough || probe === null) return null;
    const problem = await probeService(probe, probeMs, this.#run().environment);
    // It may have said so while it was asked.
    return problem !== null && (await this.#hear()).word === "updating" ? null : problem;
  }

  /** What it says, and for how long. */
  async #hear(): Promise<{ readonly word: ServiceWord | null; readonly forMs: number }> {
    const word = await this.#word.read();
    const { word: before } = this.#said;
    if (word !== before) {
      this.#said = { word, since: performance.now() };
      if (word === "updating") this.#context.note("updating", "the service says that it updates itself");
      if (before === "updating") this.#context.note("updated", `the service says: ${word ?? "nothing"}`);
    }
    return { word, forMs: performance.now() - this.#said.since };
  }

  async terminate(): Promise<void> {
    const service = this.#service;
    this.#service = null;
    await service?.kill();
    await endServicesOf(this.#context.directory);
  }

  #run(): ServiceRun {
    const { services } = this.#context;
    const { what } = this.#settings;
    const common = {
      ...BARE_ENVIRONMENT,
      ...timeZone(),
      ...services.environment,
      ...this.#word.environment,
    };
    if (what.kind === "job-service") {
      const [, command = ""] = process.argv;
      return {
        program: process.execPath,
        arguments: [command, "service", "run", "--config", what.config],
        directory: "/",
        environment: common,
        hostName: services.hostName,
      };
    }
    if (what.kind === "unit") throw new Error("a unit is no program");
    return {
      ...this.#throughLauncher(what.program, what.arguments),
      directory: what.directory,
      environment: { ...common, ...what.environment, ...services.environment, ...this.#word.environment },
      hostName: services.hostName,
    };
  }

  /** An update that was cut short is finished before the program starts; costs nothing where there is none. */
  #throughLauncher(program: string, args: readonly string[]): Pick<ServiceRun, "program" | "arguments"> {
    const { installation } = this.#settings;
    if (installation === null || !existsSync(join(installation, COMMIT_RECORD)))
      return { program, arguments: args };
    const [, command = ""] = process.argv;
    return {
      program: process.execPath,
      arguments: [command, "launch", installation, "--", program, ...args],
    };
  }

  /** What keeps it from counting as started; null: nothing. */
  async #problemOfStart(): Promise<string | null> {
    const { probe, probeMs } = this.#settings;
    if (probe !== null) return probeService(probe, probeMs, this.#run().environment);
    const { word } = await this.#hear();
    return word === "ready" ? null : `it says ${word ?? "nothing yet"}`;
  }

  /** Its probe succeeds, or, without one, a job service says that it serves; anything else: alive for a while. */
  async #untilReady(service: LaunchedService, busy: () => void, calledOff: AbortSignal): Promise<void> {
    const { probe, readyMs, startMs, updateMs, what } = this.#settings;
    const { definition } = this.#context;
    const isAsked = probe !== null || what.kind === "job-service";
    const startedAt = performance.now();
    let until = startedAt + (isAsked ? startMs : readyMs);
    let problem: string | null = null;
    let reportedAt = startedAt;
    while (isAsked || performance.now() < until) {
      if (isAsked) {
        problem = await this.#problemOfStart();
        if (problem === null && this.#service === service) return;
        // An update that it owes comes first.
        if (this.#said.word === "updating")
          until = Math.min(performance.now() + startMs, startedAt + startMs + updateMs);
      }
      if (calledOff.aborted) throw resourceFailed(definition, "its start was called off");
      const wait = isAsked ? PROBE_AGAIN_MS : Math.max(0, until - performance.now());
      if (await isSettledWithin(service.ended, Math.min(wait, BUSY_MS))) {
        const end = await service.ended;
        throw resourceFailed(definition, `it ended ${howOf(end)} before it was ready`);
      }
      if (performance.now() >= reportedAt + BUSY_MS) {
        reportedAt = performance.now();
        busy();
      }
      if (isAsked && performance.now() >= until)
        throw resourceFailed(
          definition,
          `it was not ready after ${Math.round(performance.now() - startedAt)} ms: ${problem ?? "no answer"}`,
        );
    }
  }
}

/** What programs read of the time zone; everything else of the daemon's environment is none of theirs. */
const timeZone = () => (process.env.TZ === undefined ? {} : { TZ: process.env.TZ });

const howOf = ({ code, signal }: ServiceEnd) =>
  signal === null ? `with status ${code ?? "unknown"}` : `by ${signal}`;

class UnitService implements Resource {
  readonly #context: HostedContext;
  readonly #settings: ServiceSettings;
  readonly #unit: SystemdUnit;

  constructor(context: HostedContext, settings: ServiceSettings, unit: SystemdUnit) {
    this.#context = context;
    this.#settings = settings;
    this.#unit = unit;
  }

  get undo(): readonly UndoCommand[] {
    return this.#unit.undo;
  }

  async online(busy: () => void, calledOff: AbortSignal): Promise<void> {
    const reporting = setInterval(busy, BUSY_MS);
    try {
      if (this.#context.token() === null) throw this.#failed("the lease is not ours");
      this.#refuse(await this.#unit.start(this.#settings.startMs, calledOff));
      const { probe, probeMs, readyMs, startMs } = this.#settings;
      const until = performance.now() + startMs;
      if (probe === null) await new Promise((resolve) => setTimeout(resolve, readyMs));
      for (let problem: string | null = "no answer"; probe !== null && problem !== null; ) {
        if (calledOff.aborted) throw this.#failed("its start was called off");
        problem = await probeService(probe, probeMs, BARE_ENVIRONMENT);
        if (problem === null) break;
        if (performance.now() >= until)
          throw this.#failed(`it was not ready after ${startMs} ms: ${problem}`);
        await new Promise((resolve) => setTimeout(resolve, PROBE_AGAIN_MS));
      }
      this.#refuse(await this.check(false));
    } finally {
      clearInterval(reporting);
    }
  }

  async offline(busy: () => void): Promise<void> {
    const reporting = setInterval(busy, BUSY_MS);
    try {
      this.#refuse(await this.#unit.stop(this.#settings.stopMs));
    } finally {
      clearInterval(reporting);
    }
  }

  async check(isThorough: boolean): Promise<string | null> {
    const state = await this.#unit.isActive();
    if (state !== null) return `systemd says that it is ${state}`;
    const { probe, probeMs } = this.#settings;
    return isThorough && probe !== null ? probeService(probe, probeMs, BARE_ENVIRONMENT) : null;
  }

  async terminate(): Promise<void> {
    const problem = await this.#unit.makeManual();
    if (problem !== null) this.#context.note("not-manual", problem);
    await this.#unit.end();
  }

  #refuse(problem: string | null): void {
    if (problem !== null) throw this.#failed(problem);
  }

  #failed(problem: string): LockstepError {
    return resourceFailed(this.#context.definition, problem);
  }
}

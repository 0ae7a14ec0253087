import type { Held, ServiceQueueOptions, ServiceResult } from "@lockstep/core";
import type { Work } from "./service-faults.ts";
import type { ModelHub, ModelStep } from "./service-hub.ts";

/** How long work goes on at most after it was told to stop. */
export const STOPPING_MS = 400;

/** What must never happen, as opposed to a fault of the simulation itself. */
export class Violation extends Error {}

export function violate(problem: string): never {
  throw new Violation(problem);
}

/**
 * What a job service owes, whatever fails: no step is lost and none counted twice; what must not run twice begins once
 * and never before the hub knows of it; no work goes on under a claim that has ended; a result is told that was really
 * won, and one that was written down is told for certain.
 */
export class ServiceOracle {
  readonly #hub: ModelHub;
  readonly #begun = new Map<number, number>();
  readonly #completed = new Set<number>();
  /** Results that were written down and of which the hub has not yet said what became of them. */
  readonly #owed = new Set<number>();
  readonly #told = new Set<number>();
  readonly #toldLost = new Map<number, number>();

  constructor(hub: ModelHub) {
    this.#hub = hub;
  }

  /** Work on a claim begins. */
  begins(step: ModelStep, claim: number): void {
    const begun = (this.#begun.get(step.id) ?? 0) + 1;
    this.#begun.set(step.id, begun);
    const end = this.#hub.ends.get(claim);
    const byHand = end?.why === "by-hand";
    if (step.onCrash === "freeze") {
      if (begun > 1) violate(`step ${step.id} must not run twice and began again`);
      if ((step.claim !== claim || step.state !== "processing") && !byHand)
        violate(`step ${step.id} began before the hub knew of it`);
    }
    if (end !== undefined && !byHand) violate(`claim ${claim} had ended when its work began`);
  }

  completed(claim: number): void {
    this.#completed.add(claim);
  }

  /** The service sends a result. */
  tells({ claim, outcome }: ServiceResult): void {
    if (outcome !== "given-back" && !this.#completed.has(claim))
      violate(`claim ${claim} is said to have ended with ${outcome}, and it did not`);
  }

  written(claim: number): void {
    if (!this.#told.has(claim)) this.#owed.add(claim);
  }

  /** The hub has said what became of it. */
  told(claim: number): void {
    this.#told.add(claim);
    this.#owed.delete(claim);
  }

  toldLost(claim: number, at: number): void {
    if (!this.#toldLost.has(claim)) this.#toldLost.set(claim, at);
  }

  /** Work on a claim went on until then. */
  demandInLease(claim: number, workedUntil: number): void {
    const end = this.#hub.ends.get(claim);
    if (end?.why === "by-hand") {
      // Nobody can know before he is told.
      const told = this.#toldLost.get(claim);
      if (told !== undefined && workedUntil > told + STOPPING_MS)
        violate(
          `claim ${claim} was worked on ${workedUntil - told} ms after the hub had said that it is lost`,
        );
      return;
    }
    if (end === undefined || end.why === "result" || end.at >= workedUntil) return;
    violate(`claim ${claim} ended (${end.why}) ${workedUntil - end.at} ms before the work on it did`);
  }

  /** No more is under way, fetched ahead or kept than there is room for. */
  demandRoom(
    works: readonly Work[],
    held: readonly Held[],
    options: ServiceQueueOptions,
    leftovers: number,
    now: number,
  ): void {
    const { slots, requestQueueLimit, resultQueueLimit } = options;
    const used = { internal: 0, external: 0 };
    for (const { step, stoppedAt, done } of works)
      if (!done && (stoppedAt === null || stoppedAt > now)) used[step.execution] += 1;
    for (const kind of ["internal", "external"] as const)
      if (used[kind] > slots[kind]) violate(`${used[kind]} ${kind} steps at once`);
    const queued = held.filter(({ stage }) => stage === "queued").length;
    if (queued > slots.internal + slots.external + requestQueueLimit + 1)
      violate(`${queued} steps were fetched ahead`);
    if (held.length > resultQueueLimit + leftovers + 1)
      violate(`${held.length} claims in hand, more than the limit`);
  }

  /** At the end of a calm time. Returns how many steps wait for a person. */
  demandAllEnded(claimsHeld: number): number {
    let waitForPerson = 0;
    for (const step of this.#hub.steps.values()) {
      if (step.recorded > 1) violate(`step ${step.id}: ${step.recorded} results were counted`);
      if (step.state === "finished") continue;
      if (step.state === "frozen" || step.state === "missing") {
        waitForPerson += 1;
        if (step.onCrash === "rerun") violate(`step ${step.id} may be rerun and is ${step.state}`);
        if (step.state === "missing" && !this.#begun.has(step.id))
          violate(`step ${step.id} is missing and never began`);
      } else if (step.state !== "waiting") violate(`step ${step.id} is ${step.state} at the end: lost`);
      else if (this.#hub.steps.get(step.after ?? 0)?.state === "finished")
        violate(`step ${step.id} waits for a step that has finished`);
    }
    if (claimsHeld > 0) violate(`the service keeps ${claimsHeld} claims for ever`);
    for (const claim of this.#owed) violate(`the result of claim ${claim} was written down and never told`);
    return waitForPerson;
  }
}

import {
  type ServiceEvent,
  type ServiceQueue,
  type ServiceQueueOptions,
  type ServiceStep,
  type ServiceTransition,
  startServiceQueue,
  stepServiceQueue,
} from "@lockstep/core";
import type { Prng } from "@lockstep/testing";

export const LEASE_MS = 30_000;
export const FAULTY_MS = 240_000;
export const CALM_MS = 3_600_000;
export const HUB_TICK_MS = 500;

/** What happened in a run, so that a test can say that it was no idle one. */
export interface RunCounts {
  exchanges: number;
  requestsLost: number;
  answersLost: number;
  duplicates: number;
  crashes: number;
  freezes: number;
  restartsOfHub: number;
  drains: number;
  updates: number;
  leasesLost: number;
  refused: number;
  begun: number;
  journalled: number;
  frozen: number;
}

export function noCounts(): RunCounts {
  return {
    exchanges: 0,
    requestsLost: 0,
    answersLost: 0,
    duplicates: 0,
    crashes: 0,
    freezes: 0,
    restartsOfHub: 0,
    drains: 0,
    updates: 0,
    leasesLost: 0,
    refused: 0,
    begun: 0,
    journalled: 0,
    frozen: 0,
  };
}

/** How often what goes wrong; drawn for each run, so that runs without one kind of fault show what another one does. */
export interface FaultRates {
  readonly loss: number;
  readonly duplicate: number;
  readonly slow: number;
  readonly crash: number;
  readonly workerCrash: number;
  readonly diskFull: boolean;
}

export function drawRates(prng: Prng): FaultRates {
  return {
    loss: prng.pick([0, 0.02, 0.1, 0.3]),
    duplicate: prng.pick([0, 0.05, 0.3]),
    slow: prng.pick([0, 0.05, 0.2]),
    crash: prng.pick([0, 1, 3]),
    workerCrash: prng.pick([0, 0.1]),
    diskFull: prng.chance(0.2),
  };
}

export function drawOptions(prng: Prng): ServiceQueueOptions {
  return {
    slots: { internal: 3, external: 2 },
    requestQueueLimit: 4,
    resultQueueLimit: prng.pick([4, 12]),
    requestIntervalMs: 90_000,
    journalDelayMs: 200,
  };
}

/** One run of a step in the service or a worker of it. */
export interface Work {
  readonly step: ServiceStep;
  readonly claim: number;
  /** By true time; null: goes on. */
  stoppedAt: number | null;
  /** When an external worker stops by itself, by true time. */
  deadline: number;
  done: boolean;
}

export interface ServiceMachine {
  readonly start: typeof startServiceQueue;
  readonly step: (
    state: ServiceQueue,
    event: ServiceEvent,
    now: number,
    options: ServiceQueueOptions,
  ) => ServiceTransition;
}

export const REAL_MACHINE: ServiceMachine = { start: startServiceQueue, step: stepServiceQueue };

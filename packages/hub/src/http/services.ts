import type { Clock, Logger } from "@lockstep/platform";
import type { HubStatus } from "@lockstep/protocol";
import type { ContentStore } from "@lockstep/store";
import type pg from "pg";
import type { DbQueueProcessor } from "../dbqueue/index.ts";
import type { JobService } from "../jobs/service.ts";
import type { LoadLimits } from "../repository/load.ts";
import type { SemaphoreWatch } from "../repository/semaphore.ts";
import type { ServedCertificate } from "../served-certificate.ts";
import type { SetupRunner } from "../setup/setup.ts";
import type { StepLibrary } from "../steps/step-library.ts";
import type { TrustPublisher } from "../trust/publisher.ts";
import type { Gate } from "./gate.ts";
import type { Pace } from "./pace.ts";

/** What the routes work with once the database has the schema of this hub. */
export interface Repository {
  readonly semaphore: SemaphoreWatch;
  readonly dbqueue: DbQueueProcessor;
  readonly jobs: JobService;
}

/** What every route may use. */
export interface HubServices {
  readonly pool: pg.Pool;
  readonly clock: Clock;
  readonly log: Logger;
  readonly cache: ContentStore;
  readonly steps: StepLibrary;
  readonly setup: SetupRunner;
  readonly limits: LoadLimits;
  readonly publisher: TrustPublisher;
  /** Aborts when the hub stops: long polls end. */
  readonly stopping: AbortSignal;
  /** Throws DATABASE_SCHEMA_OLDER until `lockstep setup` has brought the schema up to date. */
  repository(): Repository;
  readonly identity: Pick<HubStatus, "version" | "hub" | "database" | "startedAt" | "development">;
  /** With which it serves; null: plain HTTP. */
  readonly certificate: ServedCertificate | null;
  readonly gates: HubGates;
  readonly pace: Pace;
}

/** How much of what costs memory or a database connection may go on at once. */
export interface HubGates {
  /** Loads: each holds a connection for as long as its upload takes. */
  readonly loads: Gate;
  /** Other changes of files: each holds a connection, and they follow one another anyway. */
  readonly changes: Gate;
  readonly bundles: Gate;
  /** Contents on their way, each with a buffer. */
  readonly contents: Gate;
  readonly comparisons: Gate;
}

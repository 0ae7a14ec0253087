import type {
  EditsPolicy,
  InstallationHub,
  InstallationSettings,
  PlanOperation,
  PlanSums,
} from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { HubAccess } from "./hub-access.ts";
import type { HeldLock } from "./lock-file.ts";
import type { ProgressListener } from "./progress.ts";

/** What an installation begins as. */
export interface InitialInstallation {
  readonly id: string;
  readonly hub: InstallationHub;
  readonly roles: readonly string[];
  readonly packages: readonly string[];
  readonly settings: InstallationSettings;
}

/** Machine roles and packages as somebody chose them, without what comes along. */
export interface Choice {
  readonly roles: readonly string[];
  readonly packages: readonly string[];
}

/** One run of the updater on one directory, as data: it is handed from one process to another. */
export interface RunRequest {
  readonly format: "lockstep-run/1";
  readonly directory: string;
  /** `update`: to the software revision named. `repair`: back to what is installed, reading every file. */
  readonly mode: "update" | "repair";
  /** The software revision to go to. */
  readonly revision: number;
  /** For a directory that is no installation yet. */
  readonly initial: InitialInstallation | null;
  /** Another choice of machine roles and packages than the present one. */
  readonly selection?: Choice;
  /** Another policy for local edits, for this run alone. */
  readonly edits: EditsPolicy | null;
  /** Directory of the unpacked Update.zip of that revision, where its plug-ins lie; null: there are none. */
  readonly archive: string | null;
  readonly run: string;
  readonly startedAt: number;
  /** What set it off: a person, a program start, the agent. */
  readonly trigger: "manual" | "launch" | "agent";
  /** Which signature allows it; absent for a repair, which takes nothing new. */
  readonly allowedBy?: Readonly<Record<string, string | number>>;
}

/** Everything that a run needs of the process it runs in. */
export interface RunHost {
  readonly access: HubAccess;
  readonly clock: Clock;
  readonly lock: HeldLock;
  readonly progress: ProgressListener;
  readonly signal?: AbortSignal | undefined;
}

/** A local file that stayed although the repository wants another, or none. */
export interface KeptFile {
  readonly path: string;
  readonly reason: "edited" | "foreign" | "dropped";
}

export interface RunResult {
  readonly kind: "updated" | "in-step";
  readonly from: number | null;
  readonly to: number;
  readonly sums: PlanSums;
  /** At most KEPT_MAX; `sums.keep` counts all. */
  readonly kept: readonly KeptFile[];
  /** How long old and new files stood side by side. */
  readonly switchMs: number;
  /** Bytes of contents as they travelled. */
  readonly receivedBytes: number;
  /** What the reader should know. */
  readonly notices: readonly string[];
}

export const KEPT_MAX = 1000;

/** A plan as a document: `lockstep plan --json`. */
export interface PlanDocument {
  readonly format: "lockstep-plan/1";
  readonly directory: string;
  readonly from: number | null;
  readonly to: number;
  readonly edits: EditsPolicy;
  readonly sums: PlanSums;
  readonly operations: readonly PlanOperation[];
  /** Not empty: an update would be refused. */
  readonly faults: readonly { readonly path: string; readonly problem: string }[];
  readonly notices: readonly string[];
}

import type { ClaimedStep, StepResult } from "@lockstep/protocol/wire";
import type { ServiceIdentity } from "../components/types.ts";

/** What the service says to a worker, over the channel that Node makes between a process and its child. */
export type ToWorker =
  | {
      readonly kind: "run";
      readonly step: ClaimedStep;
      readonly service: ServiceIdentity;
      readonly directory: string;
      readonly plugins: readonly string[];
      /** For the programs that steps start. */
      readonly environment: Readonly<Record<string, string>>;
      /** By the clock of leases: at this moment the worker ends itself. */
      readonly deadline: number;
    }
  | { readonly kind: "deadline"; readonly deadline: number }
  /** Stop cleanly. */
  | { readonly kind: "stop"; readonly message: string };

export type FromWorker =
  | { readonly kind: "log"; readonly level: "info" | "warn" | "error"; readonly text: string }
  | { readonly kind: "hide"; readonly value: string }
  | { readonly kind: "end"; readonly result: StepResult; readonly terminate: boolean };

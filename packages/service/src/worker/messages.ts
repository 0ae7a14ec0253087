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
      readonly debug: boolean;
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

/**
 * What a worker that works on this step said; null: nothing that it could have. Plug-ins share the worker's channel, and
 * some libraries say a word of their own on any channel that they find (`process.send("ready")`).
 */
export function readMessage(received: unknown, step: Pick<ClaimedStep, "id" | "claim">): FromWorker | null {
  if (!isRecord(received)) return null;
  const { kind, level, text, value, result, terminate } = received;
  switch (kind) {
    case "log":
      return (level === "info" || level === "warn" || level === "error") && typeof text === "string"
        ? { kind, level, text }
        : null;
    case "hide":
      return typeof value === "string" ? { kind, value } : null;
    case "end":
      return isRecord(result) &&
        result.step === step.id &&
        result.claim === step.claim &&
        OUTCOMES.includes(result.outcome) &&
        (result.message === undefined || typeof result.message === "string")
        ? { kind, result: result as StepResult, terminate: terminate === true }
        : null;
    default:
      return null;
  }
}

const OUTCOMES: readonly unknown[] = ["success", "error", "given-back", "deferred"];
const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

import type { GuardEvent, GuardReason } from "@lockstep/core";
import type { CoordinationConfig } from "../coordination/open.ts";

/** What daemon and guard tell each other: JSON, one message a line, both of one version and on one machine. */
export interface GuardConfig {
  readonly virtualServer: string;
  /** The life of the daemon that the lease names. */
  readonly instance: string;
  readonly program: string;
  readonly arguments: readonly string[];
  readonly directory: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Run after a kill, each with its arguments: what takes the address away. */
  readonly afterKill: readonly (readonly [string, ...string[]])[];
  /** Where to give the lease back when the daemon is gone; null: nowhere. */
  readonly coordination: CoordinationConfig | null;
}

export type ToGuard =
  | { readonly kind: "hold"; readonly config: GuardConfig }
  | Exclude<GuardEvent, { kind: "tick" } | { kind: "closed" } | { kind: "gone" }>
  /** Ask the service to end by itself. */
  | { readonly kind: "terminate"; readonly token: number };

export type FromGuard =
  | { readonly kind: "armed"; readonly token: number }
  /** By group and mark the daemon can end the service too. */
  | { readonly kind: "spawned"; readonly token: number; readonly group: number; readonly mark: string }
  | { readonly kind: "failed"; readonly token: number; readonly problem: string }
  | { readonly kind: "stopped"; readonly token: number; readonly why: GuardReason | "exited" | "disarmed" };

/** Takes a stream of bytes apart into messages; what follows the last line end waits for the rest. */
export function lineReader<T>(take: (message: T) => void): (chunk: Buffer) => void {
  let rest = "";
  const decoder = new TextDecoder();
  return (chunk) => {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") take(JSON.parse(line) as T);
  };
}

import type { GuardReason } from "@lockstep/core";
import type { CoordinationConfig } from "../coordination/open.ts";
import type { ServiceRun } from "../host/service-launcher.ts";
import type { UndoCommand } from "../resources/resource.ts";

/** What daemon and guard tell each other: JSON, one message a line, both of one version and on one machine. */
export interface GuardConfig {
  readonly virtualServer: string;
  /** The life of the daemon that the lease names. */
  readonly instance: string;
  /** Where to give the lease back when the daemon is gone; null: nowhere. */
  readonly coordination: CoordinationConfig | null;
  /** A watchdog device to feed while a lease is held; null: none. */
  readonly watchdog: string | null;
  /** Real-time priority to ask for; null: the ordinary scheduling class. */
  readonly priority: number | null;
}

interface OfToken {
  readonly token: number;
}
interface OfService extends OfToken {
  /** The resource whose service it is. */
  readonly service: string;
}

export type ToGuard =
  | { readonly kind: "hold"; readonly config: GuardConfig }
  | (OfToken & { readonly kind: "arm" | "extend"; readonly deadline: number })
  | (OfToken & {
      readonly kind: "touch";
      readonly resource: string;
      /** Replaces what was told of this resource before. */
      readonly undo: readonly UndoCommand[];
      /** Where that fails, what is left must not stand beside the next owner's. */
      readonly isExclusive?: boolean;
    })
  | (OfToken & { readonly kind: "release"; readonly resource: string })
  | (OfService & { readonly kind: "launch"; readonly run: ServiceRun })
  | (OfToken & { readonly kind: "kill" | "disarm" })
  /** Whether it still does what it is there for; `pong` follows. */
  | { readonly kind: "ping" };

export type FromGuard =
  /** It runs. `problems`: what it was asked for and cannot have, in words. `lastResort`: the process that covers for it. */
  | { readonly kind: "ready"; readonly lastResort: number | null; readonly problems: readonly string[] }
  | (OfToken & { readonly kind: "armed" })
  | (OfToken & { readonly kind: "touched"; readonly resource: string })
  /** By group and mark the daemon can end the service too. */
  | (OfService & { readonly kind: "spawned"; readonly group: number; readonly mark: string })
  | (OfService & { readonly kind: "failed"; readonly problem: string })
  | (OfService & { readonly kind: "exited"; readonly code: number | null; readonly signal: string | null })
  | (OfToken & {
      readonly kind: "stopped";
      readonly why: GuardReason | "disarmed";
      /** False: something that must not stand beside the next owner's could not be undone. */
      readonly isClean: boolean;
      /** From the kill until nothing was left; null: nothing was killed. */
      readonly tookMs: number | null;
    })
  /** `delayMs`: the longest time since the last `pong` in which it did not look at the clock. */
  | { readonly kind: "pong"; readonly delayMs: number };

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

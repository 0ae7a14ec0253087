import type { Clock, Disk, FileStat, Logger } from "@lockstep/platform";
import type { LockstepError } from "@lockstep/protocol/wire";

/** Everything outside that applying needs. `root` is the installation directory, absolute, without a slash at its end. */
export interface ApplyContext {
  readonly disk: Disk;
  readonly root: string;
  readonly clock: Pick<Clock, "now" | "monotonic">;
  readonly log: Pick<Logger, "info" | "warn">;
}

/**
 * What is to happen to one file. `put` takes the verified content at `staging.pathFor(n)` and gives it `mode`, the nine
 * permission bits; `remove` takes away what stands there. The numbers `n` are the caller's and differ from each other.
 */
export type Operation =
  | { readonly n: number; readonly kind: "put"; readonly path: string; readonly mode: number }
  | { readonly n: number; readonly kind: "remove"; readonly path: string };

/** A private directory in which an update is made ready. */
export interface Staging {
  readonly id: string;
  /** Absolute. */
  readonly directory: string;
  /**
   * Where the content of operation `n` must be written before `commit`, as a plain new file. It need be neither durable
   * nor have its mode yet. Must not be a hard link to a file that stays in use.
   */
  pathFor(n: number): string;
}

/** What stands in the installation after the switch, by path: for the stat cache. */
export type IndexBuilder = (stats: ReadonlyMap<string, FileStat>) => Uint8Array;

export interface ApplyHooks {
  /**
   * The last moment at which nothing has happened: everything is staged and durable, the switch comes next. Stop what
   * must not run meanwhile. Throwing ends the update with nothing changed.
   */
  readonly stop?: () => void | Promise<void>;
  /**
   * All files are switched and durable, the update is not final yet. False or an error takes everything back. A crash
   * before the answer was recorded asks again, in the recovery: it must bear being called twice.
   */
  readonly afterSwitch?: () => boolean | Promise<boolean>;
}

export interface CommitRequest {
  readonly staging: Staging;
  readonly operations: readonly Operation[];
  /** The next InstallState.config. */
  readonly state: Uint8Array;
  /** The next stat cache, or what makes it from the files as they stand after the switch; absent: it stays as it is. */
  readonly index?: Uint8Array | IndexBuilder;
  /** The software revision before (null: none) and after. */
  readonly from: number | null;
  readonly to: number;
  /** When this update began, milliseconds since 1970: goes into the revision file (S21). */
  readonly startedAt: number;
  readonly hooks?: ApplyHooks;
}

export type CommitResult =
  | {
      readonly kind: "applied";
      /** How long old and new files stood side by side. */
      readonly switchMs: number;
      readonly put: number;
      readonly removed: number;
    }
  | RolledBack;

/** The installation stands as before the update, durably. */
export interface RolledBack {
  readonly kind: "rolled-back";
  /** Whether the switch itself failed, or `afterSwitch` said no. */
  readonly stage: "switch" | "after-switch";
  /** One sentence. */
  readonly reason: string;
  /** What failed in the switch, or what the hook threw; null when it answered false. */
  readonly error: LockstepError | null;
}

/** Which update a recovery met. */
export interface Interrupted {
  readonly from: number | null;
  readonly to: number;
  readonly startedAt: number;
}

export type RecoverResult =
  | { readonly kind: "nothing" }
  | ({ readonly kind: "finished" } & Interrupted)
  | (RolledBack & Interrupted);

export interface RecoverHooks extends Pick<ApplyHooks, "afterSwitch"> {
  /** As in CommitRequest: asked only where the interrupted update is carried out to its end here. */
  readonly index?: Uint8Array | IndexBuilder;
}

/** The content of the revision file (S20, S21): the software revision, and the start of the last modification. */
export interface RevisionFile {
  readonly revision: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
}

import type { ResourceDefinition } from "@lockstep/core";

/**
 * One kind of thing that makes up a virtual server, on the node that owns it. Decides nothing: core/virtual-server.ts
 * gives the orders, this carries them out and says what it found.
 *
 * The safety of the address and the service does not rest on this code, which may hang or die, but on the guard: what
 * takes a resource away is told to it (`undo`) before `online` is called, and it runs that when the lease ends.
 */
export interface Resource {
  /**
   * Before a planned move, on the node that will own: whatever takes time and changes nothing that others can see, so that
   * `online` is quick. Throws RESOURCE_FAILED with what would keep it from coming online here.
   */
  prepare?(): Promise<void>;
  /**
   * Brings it online; `busy` is to be called while something goes on that may take longer than the pending time-out.
   * Asks `context.token()` again before each act that others can see. Throws RESOURCE_FAILED with what was found.
   * `calledOff`: aborted when it is wanted offline before it is online; whoever takes long looks at it, and rejects.
   */
  online(busy: () => void, calledOff: AbortSignal): Promise<void>;
  /** Takes it offline in order. Throws RESOURCE_FAILED when it cannot; `terminate` follows then. */
  offline(busy: () => void): Promise<void>;
  /** Null: healthy; else what is wrong, in words. The quick look must be cheap; the thorough one uses the thing. */
  check(isThorough: boolean): Promise<string | null>;
  /**
   * Ends whatever is left of it, whatever that breaks, and resolves when nothing is. Also called when the daemon begins,
   * for what a former life left behind: it must find that without having been online. Never throws.
   */
  terminate(): Promise<void>;
  /** It will not be used any more: lets go of what it keeps at hand to be quick. Takes nothing offline. */
  close?(): void;
  /** What the guard runs when the lease ends: each a program and its arguments, absolute, harmless when repeated. */
  readonly undo: readonly UndoCommand[];
  /** Where the undo fails, what is left must not stand beside the next owner's: nobody is invited to take over. */
  readonly isExclusive?: boolean;
}

export type UndoCommand = readonly [program: string, ...args: string[]];

/** What a resource may use. */
export interface ResourceContext {
  readonly virtualServer: string;
  readonly node: string;
  readonly definition: ResourceDefinition;
  /** The fencing token to show with each act; null: we must not act. Asked anew each time, never kept. */
  readonly token: () => number | null;
  /** Says something to the administrator: goes to the daemon's log and the history. */
  readonly note: (what: string, detail: string) => void;
  /** Something happened between two checks: the resource is no longer what it was (`problem`), decided anew. */
  readonly failed: (problem: string) => void;
  /** A private directory of this resource on this node; survives the daemon. */
  readonly directory: string;
}

/** Makes a resource of its definition. Throws RESOURCE_SETTINGS with every fault at once. */
export type ResourceFactory = (context: ResourceContext) => Resource;

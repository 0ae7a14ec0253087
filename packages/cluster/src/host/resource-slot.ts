import type { VirtualServerEvent } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Resource, UndoCommand } from "../resources/resource.ts";
import { isSettledWithin } from "./time-limit.ts";

/**
 * One resource and the orders to it.
 *
 * The problem: what a resource does may hang for ever, or answer long after everybody has given it up. Meanwhile it may
 * have to be ended, and begun anew.
 *
 * What we do: never two of its operations at once, but for `terminate`, which must not wait for what hangs. Each
 * `terminate` begins another epoch; answers of an older one say nothing. If an operation still hangs when `terminate` is
 * through, its object is left behind: its context shows no token any more, so it acts on nothing, and a new object takes
 * its place.
 */
export interface SlotPort {
  /** Makes the resource. `isCurrent`: whether this object still stands for it. */
  open(isCurrent: () => boolean): Resource;
  /** Tells the guard how to undo it. Resolves to whether it may be touched now. */
  touch(undo: readonly UndoCommand[], isExclusive: boolean): Promise<boolean>;
  /** Tells the guard that nothing of it is left. */
  release(): void;
  reported(report: Report, problem: string | null): void;
}

export type Report = Extract<VirtualServerEvent, { kind: "reported" }>["report"];

/** How long an operation that is called off may take before it counts as one that hangs. */
const PATIENCE_MS = 5_000;
const AFTER_END_MS = 100;

interface Instance {
  readonly resource: Resource;
  isCurrent: boolean;
}

export class ResourceSlot {
  readonly #port: SlotPort;
  #instance: Instance;
  #epoch = 0;
  #open: Promise<void> | null = null;
  #ending: Promise<void> | null = null;
  #calledOff = new AbortController();

  /** `after`: what of a predecessor is still going; null: nothing. */
  constructor(after: Promise<void> | null, port: SlotPort) {
    this.#port = port;
    this.#instance = this.#make();
    this.#open = after;
  }

  online(): void {
    this.#run(async (isMeant) => {
      const { resource } = this.#instance;
      const { signal } = this.#calledOff;
      const { undo, isExclusive = false } = resource;
      if (undo.length > 0 && !(await this.#port.touch(undo, isExclusive))) return;
      if (!isMeant()) return;
      const busy = () => {
        if (isMeant()) this.#port.reported("busy", null);
      };
      await resource.online(busy, signal);
      if (isMeant()) this.#port.reported("online", null);
    });
  }

  /** `dependents`: what needs it may still be ending. */
  async offline(dependents: Promise<unknown> | null): Promise<void> {
    const epoch = this.#epoch;
    this.#calledOff.abort();
    if (dependents !== null) await dependents;
    const open = this.#open;
    if (open !== null && !(await isSettledWithin(open, PATIENCE_MS))) {
      if (epoch === this.#epoch) this.#port.reported("failed", "what it was doing does not end");
      return;
    }
    if (epoch !== this.#epoch) return;
    this.#calledOff = new AbortController();
    this.#run(async (isMeant) => {
      const busy = () => {
        if (isMeant()) this.#port.reported("busy", null);
      };
      await this.#instance.resource.offline(busy);
      if (!isMeant()) return;
      this.#port.release();
      this.#port.reported("offline", null);
    });
  }

  /** Null: nothing is known that would keep it from coming online. One that hangs is left behind. */
  async prepare(limitMs: number): Promise<string | null> {
    if (this.#open !== null || this.#ending !== null) return null;
    const instance = this.#instance;
    if (instance.resource.prepare === undefined) return null;
    let problem: string | null = null;
    const preparing = instance.resource.prepare().catch((error: unknown) => {
      problem = problemOf(error);
    });
    const attempt = isSettledWithin(preparing, limitMs).then((isSettled) => {
      if (this.#open === attempt) this.#open = null;
      if (isSettled) return;
      problem = `it is not prepared after ${limitMs} ms`;
      this.#leaveBehind(instance);
    });
    this.#open = attempt;
    await attempt;
    return problem;
  }

  check(isThorough: boolean): void {
    this.#run(async (isMeant) => {
      const problem = await this.#instance.resource.check(isThorough);
      if (isMeant()) this.#port.reported(problem === null ? "healthy" : "failed", problem);
    });
  }

  /** Ends it, whatever it is doing. Resolves when nothing of it is left; never rejects. */
  terminate(): Promise<void> {
    this.#epoch += 1;
    this.#calledOff.abort();
    // One that is under way does for both: nothing can have begun meanwhile.
    this.#ending ??= this.#terminate().finally(() => {
      this.#ending = null;
      this.#calledOff = new AbortController();
    });
    return this.#ending;
  }

  /** The `terminate` that is under way; null: none is. */
  settled(): Promise<void> | null {
    return this.#ending;
  }

  /** The object is not used any more. */
  retire(): void {
    this.#epoch += 1;
    this.#instance.isCurrent = false;
  }

  /** Whether the resource itself says, between two checks, that it is no longer what it was. */
  failed(problem: string): void {
    this.#port.reported("failed", problem);
  }

  #make(): Instance {
    const made = { isCurrent: true };
    return Object.assign(made, { resource: this.#port.open(() => made.isCurrent) });
  }

  #run(act: (isMeant: () => boolean) => Promise<void>): void {
    const epoch = this.#epoch;
    const isMeant = () => epoch === this.#epoch;
    const before = this.#ending ?? this.#open;
    const open = (async () => {
      await before;
      if (!isMeant()) return;
      try {
        await act(isMeant);
      } catch (error) {
        if (isMeant()) this.#port.reported("failed", problemOf(error));
      }
    })();
    this.#open = open;
    void open.then(() => {
      if (this.#open === open) this.#open = null;
    });
  }

  async #terminate(): Promise<void> {
    const instance = this.#instance;
    const open = this.#open;
    // It never throws; if it does all the same, the guard still knows how to undo it.
    await instance.resource.terminate().catch(() => {});
    if (open === null || (await isSettledWithin(open, AFTER_END_MS))) return;
    this.#leaveBehind(instance);
    if (this.#open === open) this.#open = null;
  }

  #leaveBehind(instance: Instance): void {
    instance.isCurrent = false;
    if (this.#instance === instance) this.#instance = this.#make();
  }
}

/** What a failure says, with what was found. */
export function problemOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const found = isLockstepError(error) && error.found !== undefined ? `: ${error.found}` : "";
  return `${error.message}${found}`;
}

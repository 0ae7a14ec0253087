import type { Held, HeldStage, ServiceQueue, ServiceStep } from "./job-service-types.ts";

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

/** The component whose steps update the service itself. */
export const UPDATE_COMPONENT = "AutoUpdate";

/**
 * The claims in hand, by number and also by stage.
 *
 * A service with short steps has hundreds of claims at once, and something happens to one of them many thousand times a
 * second. Whoever looked through all of them each time would spend more on looking than on the steps. So each stage has
 * its own map, in the order in which claims entered it, and the earliest end of a lease is known without looking. So are
 * the step that comes next, and the results that are not written down.
 */
export class HeldClaims extends Map<number, Held> {
  readonly #stages: Readonly<Record<HeldStage, Map<number, Held>>> = {
    queued: new Map(),
    confirming: new Map(),
    running: new Map(),
    ended: new Map(),
  };
  #leaseFloor = Number.POSITIVE_INFINITY;
  readonly #lines = { internal: new Line(), external: new Line() };
  readonly #updates = new Set<number>();
  /** Results that no open request carries. */
  readonly #untold = new Map<number, Held>();
  readonly #unwritten = new Map<number, Held>();
  /** Those of them whose steps must not run twice. */
  readonly #unwrittenOnce = new Map<number, Held>();

  constructor(all: Iterable<Held> = []) {
    super();
    for (const held of all) this.set(held.claim, held);
  }

  override set(claim: number, held: Held): this {
    const former = this.get(claim);
    if (former !== undefined && former.stage !== held.stage) this.#leave(former);
    this.#enter(held, former?.stage ?? null);
    return super.set(claim, held);
  }

  /** Changes a claim where it is. */
  change(held: Held, changes: Partial<Held>): void {
    const former = held.stage;
    if (changes.stage !== undefined && changes.stage !== former) this.#leave(held);
    const here: Writable<Held> = held;
    Object.assign(here, changes);
    this.#enter(held, former);
  }

  /** Makes the lease of a claim longer, never shorter. */
  renew(held: Held, leaseUntil: number): void {
    const here: Writable<Held> = held;
    // Nothing is kept by the ends of leases but the earliest one, which may be too early.
    if (leaseUntil > here.leaseUntil) here.leaseUntil = leaseUntil;
  }

  /** Puts a claim where its properties belong; `former`: the stage in which it was, and which it has left already. */
  #enter(held: Held, former: HeldStage | null): void {
    const { claim, stage } = held;
    if (stage !== former || this.#stages[stage].get(claim) !== held) this.#stages[stage].set(claim, held);
    if (stage === "queued" && former !== "queued" && held.step !== null)
      if (held.step.component === UPDATE_COMPONENT) this.#updates.add(claim);
      else this.#lines[held.step.execution].add(held.step, claim);
    if (stage === "ended" && held.journal === "none") {
      this.#unwritten.set(claim, held);
      if (held.step?.onCrash === "freeze") this.#unwrittenOnce.set(claim, held);
    } else if (former === "ended") this.#written(claim);
    if (stage === "ended" && held.resultIn === null) this.#untold.set(claim, held);
    else if (former === "ended") this.#untold.delete(claim);
    if (stage !== "ended") this.#leaseFloor = Math.min(this.#leaseFloor, held.leaseUntil);
  }

  override delete(claim: number): boolean {
    const former = this.get(claim);
    if (former !== undefined) this.#leave(former);
    return super.delete(claim);
  }

  #leave({ claim, stage, step }: Held): void {
    this.#stages[stage].delete(claim);
    if (stage === "queued" && step !== null) {
      this.#updates.delete(claim);
      this.#lines[step.execution].delete(step, claim);
    }
    if (stage !== "ended") return;
    this.#untold.delete(claim);
    this.#written(claim);
  }

  #written(claim: number): void {
    this.#unwritten.delete(claim);
    this.#unwrittenOnce.delete(claim);
  }

  override clear(): void {
    super.clear();
    for (const stage of Object.values(this.#stages)) stage.clear();
    for (const line of Object.values(this.#lines)) line.clear();
    this.#updates.clear();
    this.#untold.clear();
    this.#unwritten.clear();
    this.#unwrittenOnce.clear();
    this.#leaseFloor = Number.POSITIVE_INFINITY;
  }

  in(stage: HeldStage): ReadonlyMap<number, Held> {
    return this.#stages[stage];
  }

  /** The first claims that wait for a slot of a kind: the highest priority first, then the oldest claim. */
  first(execution: ServiceStep["execution"], count: number): Held[] {
    const found: Held[] = [];
    if (count <= 0) return found;
    for (const claim of this.#lines[execution].inTurn()) {
      const held = this.#stages.queued.get(claim);
      if (held !== undefined) found.push(held);
      if (found.length === count) break;
    }
    return found;
  }

  /** Steps that update this service, which need no slot. */
  queuedUpdates(): Held[] {
    return [...this.#updates].flatMap((claim) => this.#stages.queued.get(claim) ?? []);
  }

  /** Results that no open request carries. */
  get untold(): ReadonlyMap<number, Held> {
    return this.#untold;
  }

  /** Results that nobody has begun to write down, and that should be: ended by then, or of steps that must not run twice. */
  unwritten(endedBy: number): Held[] {
    if (this.#unwritten.size === 0) return [];
    const due: Held[] = [];
    for (const held of this.#unwritten.values()) {
      if (held.endedAt > endedBy) break;
      due.push(held);
    }
    for (const held of this.#unwrittenOnce.values()) if (held.endedAt > endedBy) due.push(held);
    return due;
  }

  /** When the first of these ended; infinite: there is none. */
  get firstUnwrittenAt(): number {
    for (const { endedAt } of this.#unwritten.values()) return endedAt;
    return Number.POSITIVE_INFINITY;
  }

  /** Before this no lease of work that is not over ends. It may be too early, never too late. */
  get leaseFloor(): number {
    return this.#leaseFloor;
  }

  /** Looks again, since leases have been made longer. */
  findLeaseFloor(): number {
    this.#leaseFloor = Number.POSITIVE_INFINITY;
    for (const stage of ["queued", "confirming", "running"] as const)
      for (const { leaseUntil } of this.#stages[stage].values())
        this.#leaseFloor = Math.min(this.#leaseFloor, leaseUntil);
    return this.#leaseFloor;
  }
}

/** Claims by priority, then by their number. They arrive in turn nearly always, and are put in turn only where not. */
class Line {
  readonly #priorities = new Map<number, Rank>();
  #order: readonly number[] = [];

  add({ priority }: ServiceStep, claim: number): void {
    const rank = this.#priorities.get(priority);
    if (rank === undefined) {
      this.#priorities.set(priority, { claims: new Set([claim]), last: claim, isInTurn: true });
      this.#order = [...this.#priorities.keys()].toSorted((a, b) => b - a);
      return;
    }
    rank.claims.add(claim);
    if (claim < rank.last) rank.isInTurn = false;
    else rank.last = claim;
  }

  delete({ priority }: ServiceStep, claim: number): void {
    this.#priorities.get(priority)?.claims.delete(claim);
  }

  clear(): void {
    this.#priorities.clear();
    this.#order = [];
  }

  *inTurn(): Iterable<number> {
    for (const priority of this.#order) {
      const rank = this.#priorities.get(priority);
      if (rank === undefined) continue;
      if (!rank.isInTurn) {
        rank.claims = new Set([...rank.claims].toSorted((a, b) => a - b));
        rank.isInTurn = true;
      }
      yield* rank.claims;
    }
  }
}

interface Rank {
  claims: Set<number>;
  /** The highest that came. */
  last: number;
  isInTurn: boolean;
}

/** The claims of a queue by stage, whoever made its state. */
export function heldClaims({ held }: Pick<ServiceQueue, "held">): HeldClaims {
  return held instanceof HeldClaims ? held : new HeldClaims(held.values());
}

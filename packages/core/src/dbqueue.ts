/**
 * Which tasks of the DBQueue may run now (S19; behaviours 78 to 80).
 *
 * The queue holds waiting tasks and tasks being processed. One decision at a time is taken over all hubs (the shell
 * holds a lock meanwhile), from one snapshot of both, so the rules can be plain functions:
 *
 * - A task runs only while none of its predecessors, direct or indirect, is waiting or being processed. A predecessor
 *   that keeps failing does not hold up its followers for ever: after `blockingAttempts` tries it blocks only while it
 *   is due, so it gets its turn first, fails, and while it is put off the others go on.
 * - At most `maxInstance` claims of one task at a time; never two with the same object.
 * - A task that is put off comes back at `notBefore`; one that may return early (`idleFrom`) does so as soon as
 *   nothing else can run and nothing is being processed.
 * - A bulk task takes all its fresh rows in one claim. Rows that failed before are taken one by one, so that a single
 *   bad row cannot make the others fail with it again and again.
 *
 * Not promised: fairness between tasks. The earlier in the order, then the older, goes first.
 */

export interface TaskDefinition {
  readonly task: string;
  /** One claim takes all waiting rows, not one. */
  readonly bulk: boolean;
  /** How many claims of it may be processed at once over all hubs. */
  readonly maxInstance: number;
  /** Tasks that must not be queued while this one starts. */
  readonly predecessors: readonly string[];
}

export interface WaitingTask {
  readonly id: number;
  readonly task: string;
  readonly object: string;
  readonly subObject: string;
  /** How often it was tried and failed. */
  readonly attempts: number;
  /** Put off until then (milliseconds since 1970, UTC); null: due. */
  readonly notBefore: number | null;
  /** May come back from then on when nothing else can run; null: not before `notBefore`. */
  readonly idleFrom: number | null;
}

export interface ProcessingTask {
  readonly task: string;
  readonly object: string;
  readonly subObject: string;
  /** Tasks that are processed together share it. */
  readonly claim: string;
}

export interface QueueState {
  readonly definitions: readonly TaskDefinition[];
  readonly waiting: readonly WaitingTask[];
  readonly processing: readonly ProcessingTask[];
  /** The emergency stop. */
  readonly stopped: boolean;
}

export interface ClaimOptions {
  /** How many claims may be made. */
  readonly slots: number;
  /** The tasks that the asking hub has procedures for. */
  readonly capable: ReadonlySet<string>;
  /** From this many failed tries on, a predecessor that is put off no longer blocks. */
  readonly blockingAttempts: number;
  /** Most rows of one bulk claim. */
  readonly bulkRowsMax: number;
  /** Ids of waiting rows that cannot be had at the moment; they still wait, so they still block. */
  readonly unavailable?: ReadonlySet<number>;
}

export interface TaskClaim {
  readonly task: string;
  /** Ids of the waiting rows. */
  readonly ids: readonly number[];
}

/** Why nothing of a task starts just now. */
export type BlockReason =
  | { readonly kind: "stopped" }
  | { readonly kind: "no-procedure" }
  | { readonly kind: "predecessor"; readonly task: string }
  | { readonly kind: "instances"; readonly max: number }
  | { readonly kind: "deferred"; readonly until: number }
  | { readonly kind: "slots" };

export interface ClaimDecision {
  readonly claims: readonly TaskClaim[];
  /** For every task that has waiting rows left over: why. */
  readonly blocked: ReadonlyMap<string, BlockReason>;
  /** When a task that is put off may next come back by itself; null: none. */
  readonly nextDueAt: number | null;
}

export type TaskOrder =
  | { readonly kind: "order"; readonly order: ReadonlyMap<string, number> }
  | { readonly kind: "cycle"; readonly tasks: readonly string[] };

/**
 * The order of the tasks: 1 for those without predecessors, otherwise one more than the highest predecessor.
 * Predecessors that are not defined do not count. Tasks that wait for each other are returned as a cycle.
 */
export function orderTasks(definitions: readonly TaskDefinition[]): TaskOrder {
  const byName = new Map(definitions.map((definition) => [definition.task, definition]));
  const order = new Map<string, number>();
  const path: string[] = [];
  const visit = (definition: TaskDefinition): readonly string[] | null => {
    if (order.has(definition.task)) return null;
    if (path.includes(definition.task)) return path.slice(path.indexOf(definition.task));
    path.push(definition.task);
    let highest = 0;
    for (const name of definition.predecessors) {
      const predecessor = byName.get(name);
      if (predecessor === undefined) continue;
      const cycle = visit(predecessor);
      if (cycle !== null) return cycle;
      highest = Math.max(highest, order.get(name) ?? 0);
    }
    path.pop();
    order.set(definition.task, highest + 1);
    return null;
  };
  for (const definition of definitions) {
    const cycle = visit(definition);
    if (cycle !== null) return { kind: "cycle", tasks: cycle };
  }
  return { kind: "order", order };
}

/** All direct and indirect predecessors of each task. The definitions must be free of cycles (`orderTasks`). */
export function allPredecessors(
  definitions: readonly TaskDefinition[],
): ReadonlyMap<string, ReadonlySet<string>> {
  const direct = new Map(definitions.map((definition) => [definition.task, definition.predecessors]));
  const all = new Map<string, ReadonlySet<string>>();
  const collect = (task: string): ReadonlySet<string> => {
    const known = all.get(task);
    if (known !== undefined) return known;
    const found = new Set<string>();
    all.set(task, found);
    for (const predecessor of direct.get(task) ?? []) {
      found.add(predecessor);
      for (const indirect of collect(predecessor)) found.add(indirect);
    }
    return found;
  };
  for (const { task } of definitions) collect(task);
  return all;
}

/** Milliseconds until the next try after `attempts` failed ones: doubled each time, from `baseMs` up to `maxMs`. */
export function backOffMs(
  attempts: number,
  options: { readonly baseMs: number; readonly maxMs: number },
): number {
  return Math.min(options.maxMs, options.baseMs * 2 ** Math.min(30, Math.max(0, attempts - 1)));
}

/**
 * Decides what starts now, for one hub, at `now` (milliseconds since 1970, UTC, on the database's clock).
 *
 * Of a task with very many rows `waiting` need not hold all, only the first ones by: due first, fewer attempts
 * first, older first.
 */
export function decideClaims(state: QueueState, now: number, options: ClaimOptions): ClaimDecision {
  const ordered = orderTasks(state.definitions);
  if (ordered.kind === "cycle")
    throw new RangeError(`tasks wait for each other: ${ordered.tasks.join(", ")}`);
  const plan = new ClaimPlan(state, now, options, ordered.order);
  const due = plan.claim((row) => isDue(row, now));
  if (due.length > 0 || state.processing.length > 0) return plan.decision(due);
  // Nothing else can run: whatever may come back early does so.
  return plan.decision(
    plan.claim((row) => isDue(row, now) || (row.idleFrom !== null && row.idleFrom <= now)),
  );
}

function isDue(row: WaitingTask, now: number): boolean {
  return row.notBefore === null || row.notBefore <= now;
}

const key = (row: { readonly object: string; readonly subObject: string }): string =>
  `${row.object}\u0000${row.subObject}`;

class ClaimPlan {
  readonly #state: QueueState;
  readonly #now: number;
  readonly #options: ClaimOptions;
  readonly #definitions: ReadonlyMap<string, TaskDefinition>;
  readonly #predecessors: ReadonlyMap<string, ReadonlySet<string>>;
  readonly #waiting: ReadonlyMap<string, readonly WaitingTask[]>;
  readonly #tasks: readonly string[];
  #blocked = new Map<string, BlockReason>();

  constructor(state: QueueState, now: number, options: ClaimOptions, order: ReadonlyMap<string, number>) {
    this.#state = state;
    this.#now = now;
    this.#options = options;
    this.#definitions = new Map(state.definitions.map((definition) => [definition.task, definition]));
    this.#predecessors = allPredecessors(state.definitions);
    this.#waiting = Map.groupBy(state.waiting, (row) => row.task);
    const oldest = (task: string): number =>
      (this.#waiting.get(task) ?? []).reduce((id, row) => Math.min(id, row.id), Number.POSITIVE_INFINITY);
    this.#tasks = [...this.#waiting.keys()].sort(
      (a, b) => (order.get(a) ?? 0) - (order.get(b) ?? 0) || oldest(a) - oldest(b),
    );
  }

  /** Makes the claims among the rows that `eligible` lets through. */
  claim(eligible: (row: WaitingTask) => boolean): readonly TaskClaim[] {
    const claims: TaskClaim[] = [];
    this.#blocked = new Map();
    for (const task of this.#tasks) {
      const blocked = this.#claimTask(task, eligible, claims);
      if (blocked !== null) this.#blocked.set(task, blocked);
    }
    return claims;
  }

  decision(claims: readonly TaskClaim[]): ClaimDecision {
    const future = this.#state.waiting
      .flatMap((row) => [row.notBefore, row.idleFrom])
      .filter((time) => time !== null && time > this.#now);
    return {
      claims,
      blocked: this.#blocked,
      nextDueAt: future.reduce<number | null>(
        (first, time) => Math.min(first ?? Infinity, time ?? Infinity),
        null,
      ),
    };
  }

  /** Adds the claims of one task; returns why rows are left over, or null when none are. */
  #claimTask(task: string, eligible: (row: WaitingTask) => boolean, claims: TaskClaim[]): BlockReason | null {
    const definition = this.#definitions.get(task);
    if (this.#state.stopped) return { kind: "stopped" };
    if (definition === undefined || !this.#options.capable.has(task)) return { kind: "no-procedure" };
    const predecessor = this.#blockingPredecessor(task);
    if (predecessor !== null) return { kind: "predecessor", task: predecessor };
    const processing = this.#state.processing.filter((row) => row.task === task);
    const busy = new Set(processing.map(key));
    const rows = this.#waiting.get(task) ?? [];
    const free = rows.filter(
      (row) => eligible(row) && !busy.has(key(row)) && this.#options.unavailable?.has(row.id) !== true,
    );
    let instances = new Set(processing.map((row) => row.claim)).size;
    let left = free;
    while (left.length > 0) {
      if (instances >= definition.maxInstance) return { kind: "instances", max: definition.maxInstance };
      if (claims.length >= this.#options.slots) return { kind: "slots" };
      const ids = nextClaim(left, definition, this.#options.bulkRowsMax);
      claims.push({ task, ids });
      instances += 1;
      left = left.filter((row) => !ids.includes(row.id));
    }
    return this.#whyLeft(rows, free, definition);
  }

  #whyLeft(
    rows: readonly WaitingTask[],
    claimed: readonly WaitingTask[],
    definition: TaskDefinition,
  ): BlockReason | null {
    const rest = rows.filter((row) => !claimed.includes(row));
    if (rest.length === 0) return null;
    const until = rest
      .filter((row) => !isDue(row, this.#now))
      .reduce((first, row) => Math.min(first, row.notBefore ?? Infinity), Infinity);
    // Due and yet not free: the same object is being processed right now.
    return until === Infinity
      ? { kind: "instances", max: definition.maxInstance }
      : { kind: "deferred", until };
  }

  #blockingPredecessor(task: string): string | null {
    for (const predecessor of this.#predecessors.get(task) ?? []) {
      if (this.#state.processing.some((row) => row.task === predecessor)) return predecessor;
      const waiting = this.#waiting.get(predecessor) ?? [];
      if (waiting.some((row) => isDue(row, this.#now) || row.attempts < this.#options.blockingAttempts)) {
        return predecessor;
      }
    }
    return null;
  }
}

function nextClaim(
  rows: readonly WaitingTask[],
  definition: TaskDefinition,
  bulkRowsMax: number,
): readonly number[] {
  const [first] = [...rows].sort((a, b) => a.attempts - b.attempts || a.id - b.id);
  if (first === undefined) return [];
  if (!definition.bulk || first.attempts > 0) return [first.id];
  return rows
    .filter((row) => row.attempts === 0)
    .slice(0, bulkRowsMax)
    .map((row) => row.id);
}

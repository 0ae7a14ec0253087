/**
 * Which of the steps that a limit may keep back can be claimed now.
 *
 * Limits count over the whole hub. Of a task: n at once; -1: one, and no other task of its component beside it; 0: only
 * the component's limit counts. Of a component: n at once; -1: one; 0: no limit. A task's own limit stands in place of
 * its component's, except that a component with -1 stays strictly sequential, and a running task with -1 keeps
 * everything else of its component away. An exclusive object: one step at a time among those that name it.
 */
export interface JobLimit {
  readonly component: string;
  /** "": of the component. */
  readonly task: string;
  readonly maxInstance: number;
}

export interface LimitedJobStep {
  readonly component: string;
  readonly task: string;
  readonly exclusiveObject: string | null;
}

export interface LimitedCandidate extends LimitedJobStep {
  readonly id: number;
}

export interface FullLimits {
  readonly objects: readonly string[];
  /** Components of which nothing more can be admitted. */
  readonly components: readonly string[];
  /** [component, task] with a limit of its own that is reached. */
  readonly tasks: readonly (readonly [string, string])[];
  /** Components of which only tasks with a limit of their own (`own`) can be admitted. */
  readonly shared: readonly string[];
  readonly own: readonly (readonly [string, string])[];
}

interface ComponentUse {
  total: number;
  /** Running steps of tasks without a limit of their own. */
  shared: number;
  readonly tasks: Map<string, number>;
}

/** Steps that hold a place. Add each step that runs, and each that is chosen. */
export class JobLimitUse {
  readonly #limits = new Map<string, Map<string, number>>();
  readonly #components = new Map<string, ComponentUse>();
  readonly #objects = new Set<string>();

  constructor(limits: readonly JobLimit[], running: Iterable<LimitedJobStep> = []) {
    for (const { component, task, maxInstance } of limits) {
      const tasks = this.#limits.get(component) ?? new Map<string, number>();
      this.#limits.set(component, tasks.set(task, maxInstance));
    }
    for (const step of running) this.add(step);
  }

  add(step: LimitedJobStep): void {
    if (step.exclusiveObject !== null) this.#objects.add(step.exclusiveObject);
    const use = this.#use(step.component);
    use.total += 1;
    if (this.#taskLimit(step) === 0) use.shared += 1;
    use.tasks.set(step.task, (use.tasks.get(step.task) ?? 0) + 1);
  }

  /** Whether the step may begin beside those that hold a place. */
  admits(step: LimitedJobStep): boolean {
    if (step.exclusiveObject !== null && this.#objects.has(step.exclusiveObject)) return false;
    const use = this.#use(step.component);
    const component = this.#limits.get(step.component)?.get("") ?? 0;
    if (component === -1 && use.total > 0) return false;
    for (const task of use.tasks.keys())
      if (this.#taskLimit({ component: step.component, task }) === -1) return false;
    const own = this.#taskLimit(step);
    if (own === -1) return use.total === 0;
    if (own > 0) return (use.tasks.get(step.task) ?? 0) < own;
    return component <= 0 || use.shared < component;
  }

  /** What is full: steps of which no further one can be admitted at present. */
  full(): FullLimits {
    const components: string[] = [];
    const tasks: [string, string][] = [];
    const shared: string[] = [];
    const own: [string, string][] = [];
    for (const [component, limits] of this.#limits) {
      const use = this.#use(component);
      const limit = limits.get("") ?? 0;
      for (const [task, max] of limits) {
        if (task === "" || max === 0) continue;
        own.push([component, task]);
        const running = max === -1 ? use.total : (use.tasks.get(task) ?? 0);
        if (running >= Math.abs(max)) tasks.push([component, task]);
      }
      const alone = [...use.tasks.keys()].some((task) => limits.get(task) === -1);
      if (alone || (limit === -1 && use.total > 0)) components.push(component);
      else if (limit > 0 && use.shared >= limit) shared.push(component);
    }
    return { objects: [...this.#objects], components, tasks, shared, own };
  }

  #use(component: string): ComponentUse {
    const use = this.#components.get(component) ?? { total: 0, shared: 0, tasks: new Map<string, number>() };
    this.#components.set(component, use);
    return use;
  }

  #taskLimit({ component, task }: Pick<LimitedJobStep, "component" | "task">): number {
    return this.#limits.get(component)?.get(task) ?? 0;
  }
}

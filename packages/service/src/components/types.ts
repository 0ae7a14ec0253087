import type { ClaimedStep, ProcessDetail, ProcessSummary } from "@lockstep/protocol/wire";
import type { StepLog } from "../log/types.ts";

export type { StepLog };

/**
 * What a component is: the documented interface between the job service and the work that steps ask for. Built-in
 * components and plug-ins are the same to it; docs/reference/components.md explains it with an example.
 *
 * A component has tasks. A task says which parameters it takes, so that every fault is found before anything happens,
 * and runs one step. What it may do outside its process happens at least once, not exactly once: a service can die
 * between the effect and the word about it. `step.idempotencyKey` is the same for every try of a step; a task hands it
 * to whatever it changes, wherever that can make use of it.
 */
export interface Component {
  /** As steps name it. */
  readonly name: string;
  readonly tasks: Readonly<Record<string, Task>>;
}

export interface Task {
  /** Where it may run; `either`: as the step says. */
  readonly execution: "internal" | "external" | "either";
  readonly description: string;
  /** Checked before the run, all faults at once. */
  readonly parameters: ParameterTable;
  /**
   * Runs one step. What went wrong is a result, or an error that is thrown: one of kind usage or refused is permanent,
   * any other may be tried again. Comes to an end soon after `context.signal` aborts.
   */
  run(context: TaskContext): Promise<TaskResult>;
}

/** The types of parameters, and what they are to the task. Integers and booleans may be given as text as well. */
export interface ParameterTypes {
  readonly text: string;
  readonly integer: number;
  readonly boolean: boolean;
  /** A list of texts. */
  readonly texts: readonly string[];
  /** An object of texts. */
  readonly map: Readonly<Record<string, string>>;
  /** A list of any values. */
  readonly list: readonly unknown[];
  readonly json: unknown;
}
export type ParameterType = keyof ParameterTypes;

export interface ParameterDeclaration {
  readonly type: ParameterType;
  readonly required?: boolean;
  /** Masked wherever it would show, whether the step says so or not. */
  readonly hidden?: boolean;
  /** One sentence for the reference. */
  readonly description: string;
  /** For texts: the only ones that may stand. */
  readonly choices?: readonly string[];
  /** For integers. */
  readonly minimum?: number;
  readonly maximum?: number;
  /** What the task takes where the parameter is not given. */
  readonly default?: unknown;
  /** A further condition on the value: what is wrong with it, or null. Never repeats the value. */
  readonly check?: (value: unknown) => string | null;
}
export type ParameterTable = Readonly<Record<string, ParameterDeclaration>>;

export interface TaskContext<Parameters = Readonly<Record<string, unknown>>> {
  readonly step: ClaimedStep;
  /** Checked against the table, with its defaults; what is optional and was not given is undefined. */
  readonly parameters: Parameters;
  /** Time limit, lost lease or shutdown; the reason is a LockstepError. */
  readonly signal: AbortSignal;
  /** Lines into the step's log, masked. */
  readonly log: StepLog;
  /** A directory for this run of the step alone (0700), removed afterwards. */
  readonly directory: string;
  readonly service: ServiceIdentity;
  /** The hub; null in an external worker. */
  readonly hub: StepHub | null;
  /** What the service gives to every program that a step starts. */
  readonly environment: Readonly<Record<string, string>>;
  /** Masks these texts from here on as if they were hidden parameters: a password that was read from a file. */
  hide(...values: readonly string[]): void;
  /** For texts that are cut: half a hidden value would not be recognised any more. */
  readonly mask: TextMask;
}

export interface TextMask {
  /** The text with every hidden value replaced. */
  text(text: string): string;
  /** Its first characters, about so many, replaced and then cut. */
  start(text: string, characters: number): string;
  /** Its last characters, about so many. */
  end(text: string, characters: number): string;
}

/** The service that runs the step. */
export interface ServiceIdentity {
  readonly queue: string;
  readonly machine: string;
  /** The directory of the installation that the service belongs to; null: none. */
  readonly installation: string | null;
}

/** What tasks inside the service may ask. */
export interface StepHub {
  /** A process with its steps; null: the hub knows none. */
  process(id: number, signal: AbortSignal): Promise<ProcessDetail | null>;
  /** The same without its steps, which may be ten thousand. */
  summary(id: number, signal: AbortSignal): Promise<ProcessSummary | null>;
  /** Whether this service itself has the step in hand or keeps a result of it. */
  holdsStep(id: number): boolean;
}

export type TaskResult =
  | {
      readonly kind: "success";
      readonly message?: string;
      readonly output?: Readonly<Record<string, unknown>>;
    }
  | {
      readonly kind: "error";
      readonly message: string;
      /** Another try cannot mend it. */
      readonly permanent?: boolean;
      /** The worker process must not be used again. */
      readonly terminate?: boolean;
      readonly output?: Readonly<Record<string, unknown>>;
    }
  /** To be asked again later; holds no slot meanwhile and takes no try. */
  | { readonly kind: "deferred"; readonly afterMs: number; readonly message?: string };

type ValueOf<D extends ParameterDeclaration> = D extends { readonly choices: readonly (infer C)[] }
  ? C
  : ParameterTypes[D["type"]];
/** The parameters of a table as the task gets them. */
export type ParameterValues<Table extends ParameterTable> = {
  readonly [Name in keyof Table]: Table[Name] extends
    | { readonly required: true }
    | { readonly default: NonNullable<unknown> }
    ? ValueOf<Table[Name]>
    : ValueOf<Table[Name]> | undefined;
};

import type { ParameterTable, ParameterValues, Task, TaskContext, TaskResult } from "./types.ts";

/** A task whose `run` sees its parameters with the types that its table declares. */
export function defineTask<const Table extends ParameterTable>(definition: {
  readonly execution: Task["execution"];
  readonly description: string;
  readonly parameters: Table;
  readonly run: (context: TaskContext<ParameterValues<Table>>) => Promise<TaskResult>;
}): Task {
  const { run, ...rest } = definition;
  // The values were checked against this very table before; see parameters.ts.
  return { ...rest, run: (context) => run(context as TaskContext<ParameterValues<Table>>) };
}

/** An error that another try cannot mend. */
export function permanentError(message: string, output?: Readonly<Record<string, unknown>>): TaskResult {
  return { kind: "error", message, permanent: true, ...(output === undefined ? {} : { output }) };
}

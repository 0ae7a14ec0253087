import { LockstepError } from "@lockstep/protocol/wire";
import type { Component, Task } from "./types.ts";

/**
 * Which component does what a step asks for. Built-in ones are loaded when the first step names them, so that a service
 * that sends no mail does not carry a mailer.
 */
const BUILT_IN: Readonly<Record<string, () => Promise<Component>>> = {
  AutoUpdate: async () => (await import("./auto-update.ts")).component,
  Command: async () => (await import("./command.ts")).component,
  File: async () => (await import("./file.ts")).component,
  Http: async () => (await import("./http.ts")).component,
  JobCheck: async () => (await import("./job-check.ts")).component,
  Mail: async () => (await import("./mail.ts")).component,
  Sql: async () => (await import("./sql.ts")).component,
  Wait: async () => (await import("./wait.ts")).component,
};

/** The names of the built-in components. */
export const BUILT_IN_NAMES: readonly string[] = Object.keys(BUILT_IN).sort();

/** Whether a component comes with the service; every other one can only come from a plug-in. */
export function isBuiltIn(component: string): boolean {
  return Object.hasOwn(BUILT_IN, component);
}

/** A component, built in or of one of these plug-ins. Throws JOB_COMPONENT_UNKNOWN. */
export async function findComponent(name: string, plugins: readonly Component[] = []): Promise<Component> {
  const builtIn = Object.hasOwn(BUILT_IN, name) ? BUILT_IN[name] : undefined;
  const found = builtIn === undefined ? plugins.find((each) => each.name === name) : await builtIn();
  if (found !== undefined) return found;
  const known = [...BUILT_IN_NAMES, ...plugins.map((each) => each.name)].sort();
  throw new LockstepError("JOB_COMPONENT_UNKNOWN", `this service has no component ${name}`, {
    expected: known.join(", "),
    found: name,
    hint: "Correct the step in its template, or name the plug-in that brings the component in Plugins of the service's configuration. Plug-ins run in external steps unless they are declared internal.",
  });
}

/**
 * The task of a component.
 * Throws JOB_COMPONENT_UNKNOWN, which names what there is; another try does not help.
 */
export async function findTask(
  component: string,
  task: string,
  plugins: readonly Component[] = [],
): Promise<Task> {
  const { tasks } = await findComponent(component, plugins);
  const definition = Object.hasOwn(tasks, task) ? tasks[task] : undefined;
  if (definition !== undefined) return definition;
  throw new LockstepError("JOB_COMPONENT_UNKNOWN", `the component ${component} has no task ${task}`, {
    expected: Object.keys(tasks).sort().join(", "),
    found: task,
    hint: "Correct the step in its template.",
  });
}

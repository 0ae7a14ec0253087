import { pathToFileURL } from "node:url";
import { afterOwnTime } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { isBuiltIn } from "./catalog.ts";
import type { Component } from "./types.ts";

/**
 * Components that others write: ES modules that the service's configuration names, each of which exports `components`.
 *
 * A plug-in is code of the same rights as whoever loads it. So that a bad one takes no service with it, plug-ins are
 * loaded in external workers; the service itself loads only those whose file is named `….internal.mjs`, by which whoever
 * installs it declares that it may run there. One that cannot be loaded is a named problem, and the rest goes on.
 */
export interface LoadedPlugins {
  readonly components: readonly Component[];
  /** JOB_PLUGIN_INVALID, one for each file that is not used. */
  readonly problems: readonly LockstepError[];
}

/** A module that waits for something at its top level must not keep a worker waiting for ever. */
const LOAD_MS = 10_000;
const NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,199}$/;
const TYPES = new Set<unknown>(["text", "integer", "boolean", "texts", "map", "list", "json"]);

/** Whether a plug-in may also be loaded inside the service. */
export function isInternalPlugin(file: string): boolean {
  return /\.internal\.m?js$/.test(file);
}

/** Loads the plug-ins of these files that belong into this kind of process. Never throws. */
export async function loadPlugins(
  files: readonly string[],
  where: "internal" | "external",
  loadMs = LOAD_MS,
): Promise<LoadedPlugins> {
  const components: Component[] = [];
  const problems: LockstepError[] = [];
  for (const file of files) {
    if (where === "internal" && !isInternalPlugin(file)) continue;
    try {
      for (const component of await loadPlugin(file, loadMs)) {
        if (components.some(({ name }) => name === component.name))
          throw new Error(`the component ${component.name} comes from another plug-in already`);
        components.push(component);
      }
    } catch (cause) {
      const problem = cause instanceof Error ? cause.message : String(cause);
      problems.push(
        new LockstepError("JOB_PLUGIN_INVALID", `the plug-in ${file} is not used: ${problem}`, {
          expected: "an ES module that exports components",
          found: problem,
          hint: "docs/reference/components.md says how a plug-in is written.",
          cause,
        }),
      );
    }
  }
  return { components, problems };
}

async function loadPlugin(file: string, loadMs: number): Promise<readonly Component[]> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  // For the life of this process it stays as it is found now: a moment in which nothing ran must not decide that.
  const callOff = afterOwnTime(loadMs, () =>
    reject(new Error(`it was not loaded within ${loadMs / 1000} s`)),
  );
  try {
    const module = (await Promise.race([import(pathToFileURL(file).href), late])) as Record<string, unknown>;
    const { components } = module;
    const problem = listProblem(components);
    if (problem !== null) throw new Error(problem);
    return components as readonly Component[];
  } finally {
    callOff();
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function listProblem(components: unknown): string | null {
  if (!Array.isArray(components) || components.length === 0) return "it exports no list named components";
  const names = new Set<unknown>();
  for (const component of components) {
    if (!isObject(component) || typeof component.name !== "string" || !NAME.test(component.name))
      return "a component has no name of letters, digits, _, . and -";
    if (isBuiltIn(component.name)) return `the component ${component.name} is built in`;
    if (names.has(component.name)) return `the component ${component.name} stands in it twice`;
    names.add(component.name);
    if (!isObject(component.tasks) || Object.keys(component.tasks).length === 0)
      return `the component ${component.name} has no tasks`;
    for (const [name, task] of Object.entries(component.tasks)) {
      const problem = taskProblem(task);
      if (problem !== null) return `the task ${component.name}.${name} ${problem}`;
    }
  }
  return null;
}

function taskProblem(task: unknown): string | null {
  if (!isObject(task)) return "is no object";
  if (typeof task.run !== "function") return "has no function run";
  if (!["internal", "external", "either"].includes(String(task.execution)))
    return "has no execution internal, external or either";
  if (!isObject(task.parameters)) return "has no table parameters";
  for (const [name, declaration] of Object.entries(task.parameters))
    if (!isObject(declaration) || !TYPES.has(declaration.type))
      return `declares the parameter ${name} without a type ${[...TYPES].join(", ")}`;
  return null;
}

import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_RESOURCE_POLICY, type ResourceDefinition, type ResourceType } from "@lockstep/core";
import type { Resource, ResourceContext } from "../../packages/cluster/src/resources/resource.ts";

/** A directory of a test, gone with it; what is mounted below it is taken out first. */
export async function resourceDirectory() {
  const path = await mkdtemp(join(tmpdir(), "lockstep-resource-"));
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 10 }),
  };
}

/** The surroundings of one resource on one node, and what it said. */
export function resourceContext(
  type: ResourceType,
  settings: ResourceDefinition["settings"],
  { directory, name = type, node = "alpha" }: { directory: string; name?: string; node?: string },
) {
  const notes: string[] = [];
  const problems: string[] = [];
  const state = { token: 1 as number | null };
  const own = join(directory, `${node}-${name}`);
  mkdirSync(own, { recursive: true });
  const context: ResourceContext = {
    virtualServer: "vs1",
    node,
    definition: { name, type, settings, policy: DEFAULT_RESOURCE_POLICY },
    token: () => state.token,
    note: (what, detail) => notes.push(`${what}: ${detail}`),
    failed: (problem) => problems.push(problem),
    directory: own,
  };
  return { context, notes, problems, state };
}

export const isRoot = process.platform === "linux" && process.geteuid?.() === 0;

/** Brings it online with nobody who calls it off. */
export const bringOnline = (resource: Resource): Promise<void> =>
  resource.online(() => {}, new AbortController().signal);

import { isNodeName, isServerName } from "./cluster-documents.ts";
import type { ClusterDefinition, VirtualServerDefinition } from "./cluster-types.ts";
import type { DocumentFault } from "./document-shape.ts";
import { isProven, type LeaseTimes, proveLease, type TermSlack } from "./lease-proof.ts";
import { findDependencyFaults } from "./resource-dependency.ts";
import { findPolicyFaults } from "./resource-policy.ts";

/** What is wrong with a definition beyond its form: names, dependencies, policies, times that do not fit together. */

/** What a node can be measured to need: how long a kill takes there at worst. Milliseconds. */
export interface MeasuredTimes {
  readonly stopMs: number;
  readonly guardDelayMs: number;
  readonly callMs: number;
}

/**
 * What is wrong with a virtual server's definition. `nodes`: the members of the cluster; `others`: the names of the other
 * virtual servers. The settings of a resource are checked by its type, the lease times by findLeaseFaults.
 */
export function findServerFaults(
  definition: VirtualServerDefinition,
  nodes: readonly string[],
  others: readonly string[],
): DocumentFault[] {
  const faults: DocumentFault[] = [];
  const add = (at: string, problem: string) => faults.push({ at, problem });
  const { name, resources } = definition;
  if (!isServerName(name)) add("name", `${name} is no host name of letters, digits and hyphens`);
  // A virtual server is a machine of its own towards everybody outside.
  const node = nodes.find((each) => each.toLowerCase() === name.toLowerCase());
  if (node !== undefined) add("name", `${node} is the name of a node`);
  const twin = others.find((each) => each !== name && each.toLowerCase() === name.toLowerCase());
  if (twin !== undefined) add("name", `differs from the virtual server ${twin} by case alone`);
  for (const [index, { name: resource, policy }] of resources.entries()) {
    const at = `resources[${index}]`;
    if (resources.findIndex((each) => each.name === resource) !== index)
      add(`${at}.name`, `[${resource}] is there twice`);
    for (const { field, problem } of findPolicyFaults(policy)) add(`${at}.policy.${field}`, problem);
    addUnknown(add, `${at}.policy.possibleOwners`, policy.possibleOwners ?? [], nodes);
    if (policy.possibleOwners?.length === 0)
      add(`${at}.policy.possibleOwners`, "is empty: it could run nowhere");
  }
  const graph = new Map(resources.map(({ name, policy }) => [name, policy.dependency]));
  for (const { resource, problem } of findDependencyFaults(graph)) {
    const index = resources.findIndex((each) => each.name === resource);
    add(`resources[${index}].policy.dependency`, problem);
  }
  const common = commonOwners(definition, nodes);
  if (nodes.length > 0 && common.length === 0)
    add("resources", "no node can own every resource: the lists of possible owners have none in common");
  addUnknown(add, "preferredOwners", definition.preferredOwners, nodes);
  for (const [index, each] of definition.preferredOwners.entries())
    if (definition.preferredOwners.indexOf(each) !== index) add("preferredOwners", `${each} is there twice`);
  if (definition.failback.allowed && definition.preferredOwners.length === 0)
    add("failback", "needs a list of preferred owners");
  return faults;
}

/** Of ip-address, where nothing is said. */
const LIFETIME_SECONDS = 10;

/**
 * Addresses whose lifetime in the kernel is shorter than the lease is trusted: with a store that is slow once they would
 * be gone while their owner still serves.
 */
export function findLifetimeFaults(
  { resources }: Pick<VirtualServerDefinition, "resources">,
  { trustMs }: Pick<LeaseTimes, "trustMs">,
): DocumentFault[] {
  return resources.flatMap(({ type, settings }, index) => {
    const lifetimeSeconds = settings.lifetimeSeconds ?? LIFETIME_SECONDS;
    if (type !== "ip-address" || typeof lifetimeSeconds !== "number" || lifetimeSeconds === 0) return [];
    if (lifetimeSeconds * 1_000 >= trustMs) return [];
    const problem = `${lifetimeSeconds} s is shorter than the lease is trusted (trustMs ${trustMs}); at least ${Math.ceil(trustMs / 1_000)}, or 0 for ever`;
    return [{ at: `resources[${index}].settings.lifetimeSeconds`, problem }];
  });
}

function commonOwners({ resources }: VirtualServerDefinition, nodes: readonly string[]): readonly string[] {
  return resources.reduce<readonly string[]>((left, { policy: { possibleOwners } }) => {
    return possibleOwners === null ? left : left.filter((node) => possibleOwners.includes(node));
  }, nodes);
}

function addUnknown(
  add: (at: string, problem: string) => void,
  at: string,
  names: readonly string[],
  nodes: readonly string[],
): void {
  for (const name of names) if (!nodes.includes(name)) add(at, `${name} is no node of this cluster`);
}

/** What is wrong with a cluster's definition, the times of its lease aside. */
export function findClusterFaults(definition: ClusterDefinition, nodes: readonly string[]): DocumentFault[] {
  const faults: DocumentFault[] = [];
  if (!isNodeName(definition.name)) faults.push({ at: "name", problem: `${definition.name} is no name` });
  for (const [index, { name, onNode }] of definition.votes.entries()) {
    const at = `votes[${index}]`;
    if (definition.votes.findIndex((each) => each.name === name) !== index)
      faults.push({ at, problem: `${name} votes twice` });
    if (onNode !== null && !nodes.includes(onNode))
      faults.push({ at, problem: `${onNode} is no node of this cluster` });
  }
  return faults;
}

/**
 * Why nobody may serve under these times: one fault for each term that breaks an inequality, with its limit and its
 * slack. Empty: they are proven. `measured`: what nodes were found to need. What counts is whether the inequality holds
 * with that: a node may need more than a term says as long as the others leave room for it.
 */
export function findLeaseFaults(
  times: LeaseTimes,
  measured: readonly (MeasuredTimes & { readonly node: string })[] = [],
): DocumentFault[] {
  const { faults, safety, liveness } = proveLease(times);
  const broken: DocumentFault[] = faults.map((term) => ({
    at: term,
    problem: `${times[term]} makes no sense`,
  }));
  if (faults.length === 0) {
    if (!safety.holds) broken.push(...describe("safety", safety.terms));
    if (!liveness.holds) broken.push(...describe("liveness", liveness.terms));
  }
  if (broken.length > 0) return broken;
  for (const { node, ...found } of measured) {
    const needed = neededTimes(times, found);
    const { safety } = proveLease(needed);
    if (safety.holds) continue;
    for (const term of ["stopMs", "guardDelayMs"] as const)
      if (found[term] > times[term])
        broken.push({
          at: term,
          problem: `${node} was measured to need ${needed[term]} ms, the lease allows ${times[term]}; waitMs=${waitNeededMs(needed)} ${term}=${needed[term]} would do`,
        });
  }
  return broken;
}

/** The times with what a node was measured to need, where that is more than they allow. */
export const neededTimes = (
  times: LeaseTimes,
  { stopMs, guardDelayMs }: Pick<MeasuredTimes, "stopMs" | "guardDelayMs">,
): LeaseTimes => ({
  ...times,
  stopMs: Math.max(times.stopMs, Math.ceil(stopMs)),
  guardDelayMs: Math.max(times.guardDelayMs, Math.ceil(guardDelayMs)),
});

/** The shortest waiting time with which the others are safe; whole milliseconds. */
const waitNeededMs = (times: LeaseTimes): number => {
  const { leftMs } = proveLease(times).safety;
  return Math.ceil(leftMs / (1 - times.clockError));
};

/** Whether these times let anybody serve. */
export const isLeaseSafe = (times: LeaseTimes) => isProven(proveLease(times));

function describe(inequality: string, terms: readonly TermSlack[]): DocumentFault[] {
  return terms.map(({ term, value, limit, bound, slack }) => ({
    at: term,
    problem: `${inequality}: is ${value}, ${bound === "at-most" ? "at most" : "at least"} ${round(limit)} would do (slack ${round(slack)})`,
  }));
}

const round = (value: number) => Math.round(value * 1_000) / 1_000;

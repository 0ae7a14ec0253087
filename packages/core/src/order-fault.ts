import type { Exclusion } from "./placement.ts";

/**
 * Why an order came to nothing, as a code: the node that gives an order up writes it at the end of its words in the
 * history, `order 3 (move): given up: gamma takes nothing (NODE_PAUSED)`, and the command that waits ends with it. It stands
 * in the text because nodes of different versions read each other's entries.
 *
 * There is one for each thing that whoever ordered would do next; each is documented among the errors.
 */
const ORDER_FAULTS = [
  "NODE_DOWN",
  "NODE_PAUSED",
  "NODE_QUARANTINED",
  "NODE_NOT_POSSIBLE",
  "CONFIG_DIFFERS",
  "CONFIG_UNREPORTED",
  "NODE_NOT_READY",
  "NODE_ANSWER_LATE",
  "COORDINATION_UNREACHABLE",
  "OWNER_LOST",
  "NO_CANDIDATE",
] as const;

export type OrderFault = (typeof ORDER_FAULTS)[number];

const OF_EXCLUSION: Readonly<Record<Exclusion, OrderFault>> = {
  down: "NODE_DOWN",
  paused: "NODE_PAUSED",
  quarantined: "NODE_QUARANTINED",
  "not-possible": "NODE_NOT_POSSIBLE",
  "config-differs": "CONFIG_DIFFERS",
  "config-unknown": "CONFIG_UNREPORTED",
  excluded: "NO_CANDIDATE",
};

/** What keeps a node from owning, as the fault of an order that names it. */
export const faultOfExclusion = (why: Exclusion): OrderFault => OF_EXCLUSION[why];

/** The text with the code at its end; one that has a code already keeps that. */
export const withFault = (text: string, fault: OrderFault): string =>
  splitFault(text).fault === null ? `${text} (${fault})` : text;

/** Takes the code off again; null: there is none, or none that we know. */
export function splitFault(text: string): { readonly text: string; readonly fault: OrderFault | null } {
  const fault = ORDER_FAULTS.find((each) => text.endsWith(` (${each})`)) ?? null;
  return { text: fault === null ? text : text.slice(0, -(fault.length + 3)), fault };
}

/** Several nodes were asked: what each said without its code, and one code for all of them. */
export function joinRefusals(refusals: readonly string[]): string {
  const [only] = refusals;
  if (refusals.length === 1 && only !== undefined) return only;
  return withFault(refusals.map((each) => splitFault(each).text).join("; "), "NO_CANDIDATE");
}

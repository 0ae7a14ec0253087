import { closed, documentKind, number, oneOf, orNull, textLike, textUpTo, whole } from "./document-shape.ts";
import type { LeaseTimes } from "./lease-proof.ts";

/**
 * A drill: something is lost on purpose, on the real cluster, to see what its clients would see (S14, behaviour 58).
 *
 * The order for it is a document that the owner's daemon carries out on itself. It names one life of that daemon and one
 * token, and is claimed by compare and swap before anything is done: a daemon that comes back, or a virtual server that
 * has moved meanwhile, makes it void. Whatever a loss takes away comes back by itself after `lastsMs`, whoever is gone.
 */
export const DRILL_LOSSES = ["service", "daemon", "node", "network", "store"] as const;
export type DrillLoss = (typeof DRILL_LOSSES)[number];

export interface DrillOrder {
  readonly server: string;
  readonly loss: DrillLoss;
  /** The owner, the life of its daemon and the token under which it owns: all three, or the order is void. */
  readonly node: string;
  readonly instance: string;
  readonly token: number;
  /** After so long what was taken away comes back by itself; milliseconds. */
  readonly lastsMs: number;
  /** Only `ordered` can be withdrawn. `refused`: see `problem`. `ended`: what was taken away is back. */
  readonly state: "ordered" | "begun" | "refused" | "ended";
  readonly problem: string | null;
  readonly by: string;
  /** Wall-clock milliseconds, for people. */
  readonly at: number;
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const name = textLike(NAME, "a name of letters, digits, dots, hyphens and underscores, at most 63");
const LASTS_MS_MAX = 600_000;

export const DRILL_ORDER = documentKind<DrillOrder>(
  "lockstep-drill/1",
  closed<DrillOrder>({
    server: name,
    loss: oneOf(DRILL_LOSSES),
    node: name,
    instance: textLike(/^[\x21-\x7e]{1,100}$/, "the name of one life of a daemon"),
    token: whole(1),
    lastsMs: number(0, LASTS_MS_MAX),
    state: oneOf(["ordered", "begun", "refused", "ended"]),
    problem: orNull(textUpTo(4_000)),
    by: textUpTo(200),
    at: whole(),
  }),
);

const DAEMON_MS = 3_000;
const BEYOND_MS = 4_000;

/**
 * For how long a loss lasts where nobody says otherwise: long enough that another node takes over and is online before
 * the lost one is back. Milliseconds.
 */
export function drillLastsMs(loss: DrillLoss, { waitMs }: Pick<LeaseTimes, "waitMs">): number {
  if (loss === "service") return 0;
  if (loss === "daemon") return DAEMON_MS;
  return Math.min(LASTS_MS_MAX, Math.ceil(waitMs * 1.5) + BEYOND_MS);
}

/** One question of the client that looks on; milliseconds of one clock. */
export interface DrillProbe {
  readonly sentAt: number;
  /** When the answer was there, or when nobody waited for it any more. */
  readonly doneAt: number;
  readonly isAnswered: boolean;
}

export interface DrillOutage {
  /** The longest time between two answers one after the other with a failed question between them; 0: none failed. */
  readonly ms: number;
  /** Between which moments that was; null: no question failed. */
  readonly from: number | null;
  readonly to: number | null;
  /** The longest time between two answers before the loss: what this machine does without one. */
  readonly floorMs: number;
  readonly asked: number;
  readonly failed: number;
  /** The last question has no answer. */
  readonly isOpen: boolean;
}

/** What a client saw of a loss at `lostAt`. */
export function measureDrillOutage(probes: readonly DrillProbe[], lostAt: number): DrillOutage {
  const asked = [...probes].sort((a, b) => a.sentAt - b.sentAt);
  const answers = asked.filter(({ isAnswered }) => isAnswered).sort((a, b) => a.doneAt - b.doneAt);
  const failures = asked.filter(({ isAnswered }) => !isAnswered);
  let longest: { readonly ms: number; readonly from: number; readonly to: number } | null = null;
  let floorMs = 0;
  for (const [index, next] of answers.entries()) {
    const previous = answers[index - 1];
    if (previous === undefined) continue;
    const ms = next.doneAt - previous.doneAt;
    if (next.doneAt < lostAt) floorMs = Math.max(floorMs, ms);
    // A long pause in which nothing failed is the looker's own.
    const isFailure = failures.some(({ sentAt }) => sentAt >= previous.sentAt && sentAt <= next.sentAt);
    if (isFailure && ms > (longest?.ms ?? 0)) longest = { ms, from: previous.doneAt, to: next.doneAt };
  }
  return {
    ms: longest?.ms ?? 0,
    from: longest?.from ?? null,
    to: longest?.to ?? null,
    floorMs,
    asked: asked.length,
    failed: failures.length,
    isOpen: asked.length > 0 && asked.at(-1)?.isAnswered === false,
  };
}

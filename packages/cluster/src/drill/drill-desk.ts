import type { DrillOrder, HistoryEntry } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "../coordination/coordination.ts";
import { at, DRILLS, SERVERS } from "../documents/addresses.ts";
import { ClusterDocuments } from "../documents/cluster-documents.ts";
import { Refresher } from "../node/refresher.ts";
import { type LossSurroundings, prepareLoss } from "./losses.ts";

/**
 * The daemon's side of a drill: follows the orders, and carries out those that name this life of it and the token under
 * which it owns. Claimed before it begins: a daemon that dies in between has given the order up, and whoever ordered it
 * can take back what is not claimed yet.
 */
export interface DrillDeskOptions extends LossSurroundings {
  readonly node: string;
  readonly instance: string;
  readonly store: Coordination;
  readonly clock: Clock;
  readonly log: Logger;
  readonly note: (news: Pick<HistoryEntry, "server" | "token" | "what" | "detail">) => void;
}

const LOOK_MS = 5_000;
const RETRY_MS = 500;
/** So that what is noted is in the store before whoever notes it is gone. */
const NOTED_MS = 150;
const TRIES_MS = 300;

/** Follows the orders until the signal aborts. */
export async function followDrills(options: DrillDeskOptions, signal: AbortSignal): Promise<void> {
  const documents = new ClusterDocuments(options.store.documents);
  const seen = new Set<string>();
  /** Orders of which it is not known whether our claim was written; nothing of them has begun. */
  const unsure = new Set<string>();
  const running = new Set<Promise<void>>();
  const refresher = new Refresher({
    act: async () => {
      const { found } = await documents.list(DRILLS);
      for (const order of found.values()) {
        const key = `${order.server} ${order.at} ${order.token}`;
        const isOurs = order.node === options.node && order.instance === options.instance;
        const isRepeated = unsure.has(key);
        const isOpen =
          claimable(isRepeated).includes(order.state) || (isRepeated && order.state === "refused");
        if (!isOurs || !isOpen || seen.has(key)) continue;
        seen.add(key);
        const task = carryOut(options, documents, order, isRepeated, signal)
          .catch(async (error: unknown) => {
            options.log.warn("a drill could not be carried out", { error });
            // The store did not answer before anything had begun.
            if (!isLockstepError(error)) return;
            await options.clock.sleep(RETRY_MS, signal);
            unsure.add(key);
            seen.delete(key);
            refresher.request();
          })
          .finally(() => running.delete(task));
        running.add(task);
      }
    },
    failed: (error) => options.log.debug("drills could not be looked for", { error }),
    ...{ everyMs: LOOK_MS, retryMs: RETRY_MS, clock: options.clock },
  });
  signal.addEventListener("abort", () => refresher.end(), { once: true });
  if (signal.aborted) refresher.end();
  await Promise.all([refresher.run(), documents.watch(DRILLS, () => refresher.request(), signal)]);
  await Promise.all(running);
}

/** The states from which an order may be claimed; `isRepeated`: a claim of ours may stand there already. */
const claimable = (isRepeated: boolean): readonly DrillOrder["state"][] =>
  isRepeated ? ["ordered", "begun"] : ["ordered"];

async function carryOut(
  options: DrillDeskOptions,
  documents: ClusterDocuments,
  order: DrillOrder,
  isRepeated: boolean,
  signal: AbortSignal,
): Promise<void> {
  const { clock, note } = options;
  const { server, token, loss, lastsMs } = order;
  const about = { server, token };
  // A refusal of ours that was written without an answer may have been told already, so it stays one.
  if (order.state === "refused")
    return note({ ...about, what: "drill", detail: `${loss} refused: ${order.problem}` });
  const { record } = await options.store.read(server);
  const definition = await documents.read(at(SERVERS, server));
  const isOwner = record?.node === order.node && record.instance === order.instance && record.token === token;
  const prepared =
    definition === null || !isOwner
      ? { problem: `${order.node} does not own it with token ${token} any more` }
      : await prepareLoss(order, definition, options);
  const problem = "problem" in prepared ? prepared.problem : null;
  const state = problem === null ? "begun" : "refused";
  if (!(await turn(documents, order, claimable(isRepeated), state, problem))) return;
  note({ ...about, what: "drill", detail: problem === null ? tell(order) : `${loss} refused: ${problem}` });
  if ("problem" in prepared) return;
  await clock.sleep(NOTED_MS, signal);
  const failure = await prepared.begin();
  if (failure === null) await clock.sleep(lastsMs, signal);
  else note({ ...about, what: "drill", detail: `${loss} failed: ${failure}` });
  // Where the loss was the store's it may take a moment until that answers again.
  while (!signal.aborted) {
    try {
      await turn(documents, order, ["begun"], failure === null ? "ended" : "refused", failure);
      break;
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      await clock.sleep(TRIES_MS, signal);
    }
  }
  if (failure === null && lastsMs > 0)
    note({ ...about, what: "drill", detail: `the loss of its ${loss} is over` });
}

const tell = ({ loss, lastsMs, by }: DrillOrder) =>
  `loss of ${loss === "service" ? "its service" : `its ${loss}`}${lastsMs > 0 ? ` for ${lastsMs} ms` : ""}, ordered by ${by}`;

/** Whether the order was in one of these states and is in the other now. */
async function turn(
  documents: ClusterDocuments,
  order: DrillOrder,
  from: readonly DrillOrder["state"][],
  to: DrillOrder["state"],
  problem: string | null,
): Promise<boolean> {
  let hasTurned = false;
  await documents.change(at(DRILLS, order.server), (present) => {
    hasTurned =
      present !== null &&
      from.includes(present.state) &&
      present.instance === order.instance &&
      present.at === order.at;
    return hasTurned && present !== null ? { ...present, state: to, problem } : present;
  });
  return hasTurned;
}

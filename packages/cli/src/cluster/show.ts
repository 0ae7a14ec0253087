import { systemClock } from "@lockstep/platform";
import type { ClusterSession } from "../commands/cluster-session.ts";
import { Finished } from "../failure.ts";
import { formatUtc } from "../screen/format.ts";
import { printHistory } from "./history-text.ts";
import { BeatWatch, demandServer, takeSnapshot } from "./look.ts";
import { judgeCluster } from "./status.ts";
import { printStatus } from "./status-text.ts";
import { mergeHistory } from "./timeline.ts";

/** Something is degraded. */
export const STATUS_DEGRADED = 10;

const CLEAR = "\u001b[H\u001b[2J";

/** `lockstep cluster status` */
export async function showStatus(
  session: ClusterSession,
  options: { readonly watch?: number },
): Promise<void> {
  if (options.watch === undefined) {
    const status = judgeCluster(await takeSnapshot(session));
    session.output.document(status);
    printStatus(session.output, status);
    throw new Finished(status.healthy ? 0 : STATUS_DEGRADED);
  }
  await watchStatus(session, options.watch * 1000);
}

/** Redraws for a person; else one document, or one set of rows, after the other. Ends with Ctrl-C. */
async function watchStatus(session: ClusterSession, everyMs: number): Promise<void> {
  const { documents, output, signal } = session;
  const watch = new BeatWatch((await documents.readCluster()).lease.waitMs);
  // The first look alone cannot know who goes on.
  await takeSnapshot(session, watch);
  await systemClock.sleep(1000, signal);
  while (!signal.aborted) {
    const snapshot = await takeSnapshot(session, watch);
    const status = judgeCluster(snapshot);
    output.document(status);
    if (output.data.interactive && !output.json) process.stdout.write(CLEAR);
    printStatus(output, status);
    if (output.data.interactive)
      output.line(output.paintData("dim", `\n${formatUtc(snapshot.now)}  Ctrl-C ends`));
    await pauseWithBeats(session, watch, everyMs);
  }
}

/** Waits, and goes on to look at the beats meanwhile: a node that is up must not look down because we slept. */
async function pauseWithBeats({ documents, signal }: ClusterSession, watch: BeatWatch, everyMs: number) {
  for (
    const until = systemClock.monotonic() + everyMs;
    systemClock.monotonic() < until && !signal.aborted;
  ) {
    await systemClock.sleep(Math.min(500, everyMs), signal);
    watch.see((await documents.reports()).found.values(), systemClock.monotonic());
  }
}

interface HistoryOptions {
  readonly server?: string;
  readonly node?: string;
  readonly since?: number;
  readonly follow?: boolean;
  readonly last?: number;
}

const LAST_DEFAULT = 100;
const FOLLOW_MS = 500;

/** `lockstep cluster history` */
export async function showHistory(session: ClusterSession, options: HistoryOptions): Promise<void> {
  const { documents, output, signal } = session;
  await documents.readCluster();
  const from = options.since === undefined ? null : systemClock.now() - options.since;
  const read = async () =>
    mergeHistory(await documents.history(options.server ?? null)).filter(
      ({ at, node }) =>
        (from === null || at >= from) && (options.node === undefined || node === options.node),
    );
  const all = await read();
  // Of one that was removed the history is still there.
  if (options.server !== undefined && all.length === 0)
    demandServer([...(await documents.servers()).found.values()], options.server);
  const shown = from === null ? all.slice(-(options.last ?? LAST_DEFAULT)) : all;
  printHistory(output, shown);
  if (all.length > shown.length)
    output.note(`${all.length - shown.length} earlier entries are not shown (--last, --since)`);
  if (options.follow !== true) return;
  const known = new Set(all.map(({ node, number }) => `${node} ${number}`));
  while (!signal.aborted) {
    await systemClock.sleep(FOLLOW_MS, signal);
    const fresh = (await read()).filter(({ node, number }) => !known.has(`${node} ${number}`));
    for (const { node, number } of fresh) known.add(`${node} ${number}`);
    printHistory(output, fresh);
  }
}

import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { LabHost } from "./lab-host.ts";

/** One request of a client. Times as in `labNow`. */
export interface ProbeRecord {
  readonly sentAt: number;
  /** When the whole answer was there. */
  readonly doneAt: number;
  /** The host that answered; null: nobody in time. */
  readonly by: string | null;
}

export interface ProbeTarget {
  readonly address: string;
  readonly port: number;
  readonly everyMs: number;
  readonly limitMs: number;
}

export interface Probe {
  /** Resolves when a question had an answer, or had none within its limit, for the first time. */
  saw(what: "answer" | "silence"): Promise<void>;
  stop(): Promise<readonly ProbeRecord[]>;
}

/**
 * A client that asks on an absolute schedule, every time by a new connection, and never waits for an answer with the next
 * question. The limit is below the second after which TCP repeats its first packet, so that no late one can count.
 */
export async function startProbe(
  host: LabHost,
  target: {
    readonly address: string;
    readonly port: number;
    readonly everyMs?: number;
    readonly limitMs?: number;
    /** Real-time priority, so that other work on the machine does not look like an outage. */
    readonly priority?: number;
  },
): Promise<Probe> {
  const { priority, ...asked } = target;
  const full: ProbeTarget = { everyMs: 5, limitMs: 250, ...asked };
  const file = fileURLToPath(new URL("./lab-probe-process.ts", import.meta.url));
  const words = [process.execPath, file, JSON.stringify(full)];
  if (priority !== undefined) words.unshift("chrt", "--rr", String(priority));
  const [program = "", ...args] = words;
  const child = host.start(program, args, { output: "pipe" });
  let text = "";
  child.stdout?.setEncoding("utf8");
  const said = (word: string) => text.split("\n").slice(0, -1).includes(word);
  const until = (word: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (said(word)) resolve();
        else if (child.exitCode !== null || child.signalCode !== null) reject(new Error("the probe ended"));
        else setTimeout(look, LOOK_MS);
      };
      look();
    });
  child.stdout?.on("data", (chunk: string) => {
    text += chunk;
  });
  await until("begun");
  return {
    saw: until,
    async stop() {
      child.stdin?.end();
      await once(child, "close");
      return JSON.parse(text.slice(text.lastIndexOf("\n") + 1)) as ProbeRecord[];
    },
  };
}

const LOOK_MS = 5;

export interface Outage {
  /** The longest time between two answers one after the other with a failed request between them; 0: none failed. */
  readonly gapMs: number;
  /** The longest time between two answers before `faultAt`: what the machine does without a fault. */
  readonly floorMs: number;
  readonly failed: number;
  /** Answers of a former host to what was sent after another had answered. */
  readonly flapbacks: number;
}

/** What a client saw of one change of the owner at about `faultAt`. */
export function measureOutage(records: readonly ProbeRecord[], faultAt: number): Outage {
  const sent = [...records].sort((a, b) => a.sentAt - b.sentAt);
  const answers = sent.filter((record) => record.by !== null).sort((a, b) => a.doneAt - b.doneAt);
  let [gapMs, floorMs, flapbacks] = [0, 0, 0];
  for (const [index, next] of answers.entries()) {
    const previous = answers[index - 1];
    if (previous === undefined) continue;
    const gap = next.doneAt - previous.doneAt;
    if (next.doneAt < faultAt) floorMs = Math.max(floorMs, gap);
    if (sent.some((r) => r.by === null && r.sentAt >= previous.sentAt && r.sentAt <= next.sentAt))
      gapMs = Math.max(gapMs, gap);
  }
  const last = answers.at(-1);
  const takenOver = answers.find((record) => record.by === last?.by);
  if (takenOver !== undefined)
    flapbacks = answers.filter((r) => r.by !== last?.by && r.sentAt > takenOver.doneAt).length;
  return { gapMs, floorMs, failed: sent.length - answers.length, flapbacks };
}

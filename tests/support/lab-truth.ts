import { Worker } from "node:worker_threads";
import { type Lab, labNow } from "./lab.ts";

/** What was so on the hosts at one moment, whatever anybody there believes. Times as in `labNow`. */
export interface TruthSample {
  readonly at: number;
  /** By address: hosts that have it and could answer. */
  readonly owners: Readonly<Record<string, readonly string[]>>;
  /** By TCP port: hosts on which somebody listens, with the process. */
  readonly listeners: Readonly<Record<string, readonly { readonly host: string; readonly pid: number }[]>>;
}

export interface TruthQuestion {
  readonly hosts: readonly { readonly name: string; readonly anchor: number; readonly namespace: string }[];
  readonly addresses: readonly string[];
  readonly ports: readonly number[];
  readonly everyMs: number;
}

export interface Truth {
  /** Resolves when a look that began after this was called is among the samples. */
  looked(): Promise<void>;
  /** Ends the sampling; all samples in order. May be asked again. */
  stop(): Promise<readonly TruthSample[]>;
}

/**
 * Looks every `everyMs` on all hosts, in a thread of its own so that a busy test does not blind it. A sample takes well
 * below a millisecond: what it needs stands in /proc. An address on an interface that was set down does not count.
 */
export async function watchTruth(
  lab: Lab,
  watched: {
    readonly addresses: readonly string[];
    readonly ports?: readonly number[];
    readonly everyMs?: number;
  },
): Promise<Truth> {
  const question: TruthQuestion = {
    hosts: lab.hosts.map(({ name, anchor, namespace }) => ({ name, anchor, namespace })),
    addresses: watched.addresses,
    ports: watched.ports ?? [],
    everyMs: watched.everyMs ?? 20,
  };
  const worker = new Worker(new URL("./lab-truth-worker.ts", import.meta.url), { workerData: question });
  const failed = new Promise<never>((_, reject) => worker.once("error", reject));
  failed.catch(() => {});
  // The moment of each look as it is taken, and all of them at last.
  type Message = number | readonly TruthSample[];
  const hear = <T extends Message>(isMeant: (message: Message) => message is T) =>
    Promise.race([
      failed,
      new Promise<T>((resolve) => {
        const take = (message: Message) => {
          if (!isMeant(message)) return;
          worker.off("message", take);
          resolve(message);
        };
        worker.on("message", take);
      }),
    ]);
  const isMoment = (message: Message): message is number => typeof message === "number";
  await hear(isMoment);
  const looked = async () => {
    for (const asked = labNow(); (await hear(isMoment)) <= asked; );
  };
  const stop = async () => {
    const answer = hear((message): message is readonly TruthSample[] => !isMoment(message));
    worker.postMessage("stop");
    const samples = await answer;
    await worker.terminate();
    return samples;
  };
  let stopped: Promise<readonly TruthSample[]> | null = null;
  return {
    looked,
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}

/** The moments at which more than one host had an address. */
export function findTwoOwners(samples: readonly TruthSample[], address: string): TruthSample[] {
  return samples.filter((sample) => (sample.owners[address]?.length ?? 0) > 1);
}

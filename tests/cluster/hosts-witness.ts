import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { HistoryEntry, LeaseRecord, NodeReport } from "@lockstep/core";
import type { LabHost } from "../support/lab-host.ts";

/** A write of the service's that arrived. Time as in `labNow`. */
export interface ArrivedWrite {
  readonly at: number;
  readonly token: number;
  readonly node: string;
  /** One life of the service, and the number of the write in it. */
  readonly writer: string;
  readonly number: number;
  readonly isAccepted: boolean;
}

interface Answers {
  readonly history: readonly HistoryEntry[];
  readonly reports: Readonly<Record<string, NodeReport>>;
  readonly record: LeaseRecord | null;
  readonly settings: Readonly<Record<string, string>>;
  readonly arrived: readonly ArrivedWrite[];
  readonly order: number;
  readonly forgive: null;
}

const FILE = fileURLToPath(new URL("hosts-witness-process.ts", import.meta.url));
export const RECEIVER_PORT = 7070;

/** Somebody on a host who can be asked (hosts-witness-process.ts). */
export class Witness {
  readonly #tell: (line: string) => void;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #asked = 0;

  static async start(
    host: LabHost,
    about: { readonly endpoints: readonly string[]; readonly prefix: string; readonly server: string },
  ): Promise<Witness> {
    const child = host.start(process.execPath, [FILE, JSON.stringify({ ...about, port: RECEIVER_PORT })], {
      output: "pipe",
    });
    const witness = new Witness((line) => child.stdin?.write(line));
    const begun = witness.#wait(0);
    if (child.stdout === null) throw new Error("the witness has no output");
    createInterface({ input: child.stdout })
      .on("line", (line) => {
        const { id, answer, problem } = JSON.parse(line) as {
          id: number;
          answer?: unknown;
          problem?: string;
        };
        const waiting = witness.#waiting.get(id);
        if (problem === undefined) waiting?.resolve(answer);
        else waiting?.reject(new Error(problem));
        witness.#waiting.delete(id);
      })
      .once("close", () => {
        for (const each of witness.#waiting.values()) each.reject(new Error("the witness has ended"));
      });
    await begun;
    return witness;
  }

  private constructor(tell: (line: string) => void) {
    this.#tell = tell;
  }

  ask<K extends keyof Answers>(what: K, node: string | null = null): Promise<Answers[K]> {
    this.#asked += 1;
    const answer = this.#wait(this.#asked);
    this.#tell(`${JSON.stringify({ id: this.#asked, what, node })}\n`);
    return answer as Promise<Answers[K]>;
  }

  #wait(id: number): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>();
    waiting.promise.catch(() => {});
    this.#waiting.set(id, waiting);
    return waiting.promise;
  }
}

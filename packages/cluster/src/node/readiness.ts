import { type ReadinessQuestion, withFault } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { at, READINESS } from "../documents/addresses.ts";
import type { ClusterDocuments } from "../documents/cluster-documents.ts";
import type { ClusterMirror } from "./cluster-mirror.ts";

/**
 * Whether the node that a virtual server is to move to could take it now.
 *
 * The problem: an owner that leaves names who comes next, and everybody else waits for that one. If it is cut off at that
 * moment, or cannot start anything, clients wait for a whole lease time although nothing had been wrong.
 *
 * What we do: the owner asks first, and goes on serving until the answer is there. The question is a document in the
 * store, so an answer shows that the other node reaches what the lease is in; before it answers it does all that can be
 * done beforehand (its guard answers, the settings are fetched, resources are prepared). No answer in time, and the owner
 * stays.
 *
 * Not promised: that the other node is still there a moment later. Then the lease is waited out as after any loss.
 */
export interface ReadinessOptions {
  readonly node: string;
  readonly documents: ClusterDocuments;
  readonly mirror: Pick<ClusterMirror, "readiness" | "refresh">;
  readonly clock: Clock;
  readonly log: Logger;
  /** What would keep a virtual server from coming online here; null: nothing is known. */
  readonly prepare: (server: string) => Promise<string | null>;
}

interface Asked {
  readonly number: number;
  readonly answered: (problem: string | null) => void;
}

const PROBLEM_LENGTH_MAX = 4_000;

export class Readiness {
  readonly #options: ReadinessOptions;
  /** By virtual server: the question that waits for its answer. */
  readonly #asked = new Map<string, Asked>();
  /** By virtual server: the newest question that was answered here. */
  readonly #answered = new Map<string, number>();

  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  /** Asks another node. Resolves to what keeps it from taking over, no answer in time included; null: it is ready. */
  async ask(server: string, to: string, limitMs: number): Promise<string | null> {
    const { node, documents, mirror, clock } = this.#options;
    const ending = new AbortController();
    let asked: Asked | null = null;
    try {
      const question = await documents.change(at(READINESS, server), (present) => ({
        ...{ number: (present?.number ?? 0) + 1, from: node, to },
        answer: null,
      }));
      const { promise, resolve } = Promise.withResolvers<string | null>();
      asked = { number: question?.number ?? 0, answered: resolve };
      this.#asked.set(server, asked);
      mirror.refresh();
      const late = clock
        .sleep(limitMs, ending.signal)
        .then(() =>
          withFault(`${to} has not said within ${limitMs / 1000} s that it is ready`, "NODE_ANSWER_LATE"),
        );
      return await Promise.race([promise, late]);
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      // COORDINATION_UNREACHABLE is a fault of an order itself.
      return withFault(`${to} could not be asked whether it is ready (${error.code})`, "NO_CANDIDATE");
    } finally {
      ending.abort();
      // Somebody may have asked anew meanwhile.
      if (this.#asked.get(server) === asked) this.#asked.delete(server);
    }
  }

  /** To be called when the documents may have changed. */
  look(): void {
    // Whoever defines a virtual server anew counts its questions anew.
    for (const server of this.#answered.keys())
      if (!this.#options.mirror.readiness.has(server)) this.#answered.delete(server);
    for (const [server, question] of this.#options.mirror.readiness) {
      const asked = this.#asked.get(server);
      if (asked?.number === question.number && question.answer !== null) {
        const { problem } = question.answer;
        asked.answered(problem === null ? null : withFault(`${question.to}: ${problem}`, "NODE_NOT_READY"));
      }
      if (question.to === this.#options.node && question.answer === null) void this.#answer(server, question);
    }
  }

  async #answer(server: string, { number }: ReadinessQuestion): Promise<void> {
    const { documents, log, prepare } = this.#options;
    if (this.#answered.get(server) === number) return;
    this.#answered.set(server, number);
    // What is longer would be a document that nobody reads, and no move would be possible any more.
    const problem = (await prepare(server))?.slice(0, PROBLEM_LENGTH_MAX) ?? null;
    try {
      await documents.change(at(READINESS, server), (present) =>
        present === null || present.number !== number ? present : { ...present, answer: { problem } },
      );
    } catch (error) {
      if (!isLockstepError(error)) throw error;
      // Tried once more when the store shows the question again.
      this.#answered.delete(server);
      log.warn("a question whether this node is ready could not be answered", { server, error });
    }
  }
}

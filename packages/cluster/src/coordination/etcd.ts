import type { LeaseRecord, Observation } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import type { Coordination, RecordSwap, SwapAnswer } from "./coordination.ts";
import type { Documents } from "./documents.ts";
import { EtcdDocuments } from "./etcd-documents.ts";
import { EtcdGateway, type EtcdOptions } from "./etcd-gateway.ts";
import { HEDGE_MS, LARGE_HEDGE_MS, swapBeside } from "./etcd-hedge.ts";
import {
  encode,
  firstResponse,
  hasSucceeded,
  isAt,
  type KeyValue,
  keyValues,
  put,
  rangeOf,
  revisionOf,
} from "./etcd-values.ts";
import { followRange } from "./etcd-watch.ts";
import { formatRecord, parseRecord } from "./record-text.ts";

/**
 * Coordination on etcd, below the prefix of one cluster: `vs/NAME/owner` holds the record, `vs/NAME/fence` the token,
 * `vs/NAME/value/KEY` the values, `doc/KEY` the documents.
 *
 * The record is renewed by compare and swap on its mod_revision, not by an etcd lease: a lease's time is kept in the
 * memory of the raft leader and starts anew when that leader dies, which costs several seconds in the very case that
 * counts.
 */
export const ETCD_PREFIX = "lockstep/";

export interface EtcdCoordinationOptions extends Omit<EtcdOptions, "monotonic"> {
  readonly clock: Clock;
  /** What all keys of the cluster begin with, and those of no other. */
  readonly prefix?: string;
}

export function openEtcd(options: EtcdCoordinationOptions): Coordination {
  return new EtcdCoordination(options);
}

class EtcdCoordination implements Coordination {
  readonly #gateway: EtcdGateway;
  readonly #clock: Clock;
  readonly #prefix: string;
  readonly #closing = new AbortController();
  /** Aborted when another swap of the same record is begun. */
  readonly #newer = new Map<string, AbortController>();
  readonly documents: Documents;

  constructor({ clock, prefix = ETCD_PREFIX, ...options }: EtcdCoordinationOptions) {
    this.#clock = clock;
    this.#prefix = prefix;
    this.#gateway = new EtcdGateway({ ...options, monotonic: () => clock.monotonic() });
    this.documents = new EtcdDocuments(this.#gateway, clock, `${prefix}doc/`, this.#closing.signal);
  }

  async read(name: string, limit?: AbortSignal): Promise<Observation> {
    return observationOf(
      await this.#gateway.ask("/v3/kv/range", { key: encode(this.#key(name, "owner")) }, limit),
    );
  }

  async swap(name: string, { expected, record, takes }: RecordSwap): Promise<SwapAnswer> {
    const owner = this.#key(name, "owner");
    const text = formatRecord(record);
    const body = {
      compare: [isAt(owner, expected)],
      success: [put(owner, text), ...(takes ? [put(this.#key(name, "fence"), String(record.token))] : [])],
      failure: [{ request_range: { key: encode(owner) } }],
    };
    const limit = this.#gateway.limit();
    // Of two on their way the newer one is what is wanted.
    const newer = new AbortController();
    this.#newer.get(name)?.abort();
    this.#newer.set(name, newer);
    const wanted = AbortSignal.any([limit, newer.signal, this.#closing.signal]);
    return await swapBeside({
      send: async () => {
        const answer = await this.#gateway.call("/v3/kv/txn", body, limit);
        if (hasSucceeded(answer)) return { swapped: true, revision: revisionOf(answer) };
        return judge(observationOf(firstResponse(answer, "response_range")), text);
      },
      look: async () => {
        const observation = await this.read(name, wanted);
        const judged = judge(observation, text);
        return judged.swapped || observation.revision !== expected ? judged : null;
      },
      standing: () => this.#gateway.standing,
      isWanted: () => !wanted.aborted,
    });
  }

  async writeGuarded(
    name: string,
    token: number,
    values: ReadonlyMap<string, string | null>,
  ): Promise<boolean> {
    const answer = await this.#gateway.call("/v3/kv/txn", {
      compare: [
        {
          key: encode(this.#key(name, "fence")),
          target: "VALUE",
          result: "EQUAL",
          value: encode(String(token)),
        },
      ],
      success: [...values].map(([key, value]) => {
        const full = this.#key(name, "value/") + key;
        return value === null ? { request_delete_range: { key: encode(full) } } : put(full, value);
      }),
    });
    return hasSucceeded(answer);
  }

  async readValues(name: string, prefix = ""): Promise<ReadonlyMap<string, string>> {
    const found = await this.#values(name, prefix, false);
    return new Map(found.map(({ key, value }) => [key, value]));
  }

  async readValueKeys(name: string, prefix: string): Promise<readonly string[]> {
    return (await this.#values(name, prefix, true)).map(({ key }) => key);
  }

  /** The values whose key begins with `prefix`. */
  async #values(name: string, prefix: string, keysOnly: boolean): Promise<KeyValue[]> {
    const base = this.#key(name, "value/");
    // A takeover waits for them: also for those that it asked for before it knew that it would be one.
    const range = await this.#gateway.ask(
      "/v3/kv/range",
      { ...rangeOf(base + prefix), keys_only: keysOnly },
      this.#gateway.limit(),
      keysOnly ? HEDGE_MS : LARGE_HEDGE_MS,
    );
    return keyValues(range).map(({ key, ...rest }) => ({ ...rest, key: key.slice(base.length) }));
  }

  async watch(name: string, tell: (observation: Observation) => void, signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closing.signal]);
    const range = { key: encode(this.#key(name, "owner")) };
    let told = 0;
    const tellNewer = (observation: Observation) => {
      if (observation.revision <= told || ending.aborted) return;
      told = observation.revision;
      tell(observation);
    };
    const look = async () => {
      const answer = await this.#gateway.call("/v3/kv/range", range);
      tellNewer(observationOf(answer));
      return revisionOf(answer);
    };
    const changed = (written: readonly KeyValue[]) => written.map(observationOfKeyValue).forEach(tellNewer);
    await followRange(this.#gateway, this.#clock, range, look, changed, ending);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#gateway.close();
  }

  #key(name: string, what: "owner" | "fence" | "value/"): string {
    return `${this.#prefix}vs/${encodeURIComponent(name)}/${what}`;
  }
}

/** No record is written twice: where this one stands, a copy of the swap has happened, whatever became of its answer. */
function judge(observation: Observation, text: string): SwapAnswer {
  const { record, revision } = observation;
  return record !== null && formatRecord(record) === text
    ? { swapped: true, revision }
    : { swapped: false, observation };
}

function observationOf(range: unknown): Observation {
  const [first] = keyValues(range);
  return first === undefined ? { record: null, revision: 0 } : observationOfKeyValue(first);
}

function observationOfKeyValue({ key, value, modRevision }: KeyValue): Observation {
  const record: LeaseRecord = parseRecord(value, key);
  return { record, revision: modRevision };
}

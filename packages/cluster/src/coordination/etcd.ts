import type { LeaseRecord, Observation } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Coordination, RecordSwap, SwapAnswer } from "./coordination.ts";
import { EtcdGateway, type EtcdOptions } from "./etcd-gateway.ts";
import { formatRecord, parseRecord } from "./record-text.ts";

/**
 * Coordination on etcd: `lockstep/vs/NAME/owner` holds the record, `…/fence` the token, `…/value/KEY` the values. The
 * record is renewed by compare and swap on its mod_revision, not by an etcd lease: a lease's time is kept in the memory
 * of the raft leader and starts anew when that leader dies, which costs several seconds in the very case that counts.
 */
const PREFIX = "lockstep/vs/";
/** A stream that says nothing for so long may be dead; a new one costs nothing and misses nothing. */
const SILENT_MS = 15_000;
const RETRY_MS = 100;

export interface EtcdCoordinationOptions extends Omit<EtcdOptions, "monotonic"> {
  readonly clock: Clock;
}

export function openEtcd(options: EtcdCoordinationOptions): Coordination {
  return new EtcdCoordination(options);
}

class EtcdCoordination implements Coordination {
  readonly #gateway: EtcdGateway;
  readonly #clock: Clock;
  readonly #closing = new AbortController();

  constructor({ clock, ...options }: EtcdCoordinationOptions) {
    this.#clock = clock;
    this.#gateway = new EtcdGateway({ ...options, monotonic: () => clock.monotonic() });
  }

  async read(name: string): Promise<Observation> {
    const range = await this.#gateway.call("/v3/kv/range", { key: encode(ownerKey(name)) });
    return observationOf(range);
  }

  async swap(name: string, { expected, record, takes }: RecordSwap): Promise<SwapAnswer> {
    const owner = encode(ownerKey(name));
    const answer = await this.#gateway.call("/v3/kv/txn", {
      compare: [{ key: owner, target: "MOD", result: "EQUAL", mod_revision: String(expected) }],
      success: [
        put(owner, formatRecord(record)),
        ...(takes ? [put(encode(fenceKey(name)), String(record.token))] : []),
      ],
      failure: [{ request_range: { key: owner } }],
    });
    if (hasSucceeded(answer)) return { swapped: true, revision: revisionOf(answer) };
    return { swapped: false, observation: observationOf(firstResponse(answer, "response_range")) };
  }

  async writeGuarded(
    name: string,
    token: number,
    values: ReadonlyMap<string, string | null>,
  ): Promise<boolean> {
    const answer = await this.#gateway.call("/v3/kv/txn", {
      compare: [
        { key: encode(fenceKey(name)), target: "VALUE", result: "EQUAL", value: encode(String(token)) },
      ],
      success: [...values].map(([key, value]) => {
        const encoded = encode(valuePrefix(name) + key);
        return value === null ? { request_delete_range: { key: encoded } } : put(encoded, value);
      }),
    });
    return hasSucceeded(answer);
  }

  async readValues(name: string): Promise<ReadonlyMap<string, string>> {
    const prefix = valuePrefix(name);
    const range = await this.#gateway.call("/v3/kv/range", {
      key: encode(prefix),
      // The first key behind all that begin with the prefix, which ends in a slash.
      range_end: encode(`${prefix.slice(0, -1)}0`),
    });
    return new Map(keyValues(range).map(({ key, value }) => [key.slice(prefix.length), value]));
  }

  async watch(name: string, tell: (observation: Observation) => void, signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closing.signal]);
    let told = 0;
    let next: number | null = null;
    while (!ending.aborted) {
      try {
        if (next === null) {
          const range = await this.#gateway.call("/v3/kv/range", { key: encode(ownerKey(name)) });
          const observation = observationOf(range);
          if (observation.revision > told) {
            told = observation.revision;
            tell(observation);
          }
          next = revisionOf(range) + 1;
        }
        for await (const { observations, compacted, revision } of this.#changes(name, next, ending)) {
          if (compacted) {
            next = null;
            break;
          }
          for (const observation of observations)
            if (observation.revision > told) {
              told = observation.revision;
              tell(observation);
            }
          next = Math.max(next, revision + 1);
        }
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
        await this.#clock.sleep(RETRY_MS, ending);
      }
    }
  }

  /** One stream, until it ends or says nothing for too long. */
  async *#changes(name: string, start: number, ending: AbortSignal) {
    const silence = new AbortController();
    const stream = this.#gateway.stream(
      "/v3/watch",
      { create_request: { key: encode(ownerKey(name)), start_revision: String(start) } },
      AbortSignal.any([ending, silence.signal]),
    );
    let timer = setTimeout(() => silence.abort(), SILENT_MS);
    try {
      for await (const message of stream) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT_MS);
        const result = member(message, "result");
        yield {
          observations: list(result, "events")
            .map((event) => member(event, "kv"))
            .filter((kv) => kv !== undefined && member(kv, "value") !== undefined)
            .map((kv) => observationOfKeyValue(keyValue(kv))),
          compacted: member(result, "canceled") === true,
          revision: Number(member(member(result, "header"), "revision") ?? 0),
        };
      }
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
  }
}

const ownerKey = (name: string) => `${PREFIX}${encodeURIComponent(name)}/owner`;
const fenceKey = (name: string) => `${PREFIX}${encodeURIComponent(name)}/fence`;
const valuePrefix = (name: string) => `${PREFIX}${encodeURIComponent(name)}/value/`;

const encode = (text: string) => Buffer.from(text, "utf8").toString("base64");
const decode = (text: unknown) =>
  typeof text === "string" ? Buffer.from(text, "base64").toString("utf8") : "";
const put = (key: string, value: string) => ({ request_put: { key, value: encode(value) } });

// The gateway leaves out what is zero, false or empty, and writes 64-bit numbers as text.

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function list(value: unknown, name: string): readonly unknown[] {
  const found = member(value, name);
  return Array.isArray(found) ? found : [];
}

const hasSucceeded = (answer: unknown) => member(answer, "succeeded") === true;
const firstResponse = (answer: unknown, kind: string) => member(list(answer, "responses")[0], kind);

function revisionOf(answer: unknown): number {
  const revision = Number(member(member(answer, "header"), "revision"));
  if (Number.isSafeInteger(revision) && revision > 0) return revision;
  throw new LockstepError("COORDINATION_ANSWER_INVALID", "etcd answered without a revision", {
    found: JSON.stringify(answer)?.slice(0, 200) ?? "nothing",
  });
}

interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly modRevision: number;
}

const keyValue = (kv: unknown): KeyValue => ({
  key: decode(member(kv, "key")),
  value: decode(member(kv, "value")),
  modRevision: Number(member(kv, "mod_revision") ?? 0),
});

const keyValues = (range: unknown): KeyValue[] => list(range, "kvs").map(keyValue);

function observationOf(range: unknown): Observation {
  const [first] = keyValues(range);
  return first === undefined ? { record: null, revision: 0 } : observationOfKeyValue(first);
}

function observationOfKeyValue({ key, value, modRevision }: KeyValue): Observation {
  const record: LeaseRecord = parseRecord(value, key);
  return { record, revision: modRevision };
}

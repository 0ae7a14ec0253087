import type { Clock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import { type ClusterDocument, checkDocument, type Documents } from "./documents.ts";
import type { EtcdGateway } from "./etcd-gateway.ts";
import {
  encode,
  hasSucceeded,
  isAt,
  type KeyValue,
  keyValues,
  member,
  put,
  rangeOf,
  revisionOf,
} from "./etcd-values.ts";
import { followRange } from "./etcd-watch.ts";

/** Of documents of 512 KiB so many fit into one answer that etcd and we take. */
const PAGE = 40;

/** Documents as keys of etcd below `root`; their revision is the key's mod_revision. */
export class EtcdDocuments implements Documents {
  readonly #gateway: EtcdGateway;
  readonly #clock: Clock;
  readonly #root: string;
  readonly #closing: AbortSignal;

  constructor(gateway: EtcdGateway, clock: Clock, root: string, closing: AbortSignal) {
    this.#gateway = gateway;
    this.#clock = clock;
    this.#root = root;
    this.#closing = closing;
  }

  async read(key: string): Promise<ClusterDocument | null> {
    const answer = await this.#gateway.call("/v3/kv/range", { key: encode(this.#root + key) });
    const [found] = keyValues(answer);
    return found === undefined ? null : { text: found.value, revision: found.modRevision };
  }

  async list(prefix: string): Promise<ReadonlyMap<string, ClusterDocument>> {
    for (;;) {
      try {
        const found = await this.#page(rangeOf(this.#root + prefix));
        return new Map(
          found.map(({ key, value, modRevision }) => [
            key.slice(this.#root.length),
            { text: value, revision: modRevision },
          ]),
        );
      } catch (error) {
        // The moment that the first page shows was compacted away before the last one was read.
        if (!isLockstepError(error) || !/has been compacted/.test(String(error.cause))) throw error;
      }
    }
  }

  /** All pages as of the moment of the first. */
  async #page(range: { readonly key: string; readonly range_end: string }): Promise<KeyValue[]> {
    const found: KeyValue[] = [];
    let revision: number | null = null;
    for (let { key } = range; ; ) {
      const answer: unknown = await this.#gateway.call("/v3/kv/range", {
        ...range,
        key,
        limit: String(PAGE),
        ...(revision === null ? {} : { revision: String(revision) }),
      });
      revision ??= revisionOf(answer);
      const page = keyValues(answer);
      found.push(...page);
      const last = page.at(-1);
      if (last === undefined || member(answer, "more") !== true) return found;
      // The smallest key behind the last one.
      key = encode(`${last.key}\0`);
    }
  }

  async write(key: string, expected: number, text: string | null): Promise<number | null> {
    checkDocument(key, text);
    const full = this.#root + key;
    const answer = await this.#gateway.call("/v3/kv/txn", {
      compare: [isAt(full, expected)],
      success: [text === null ? { request_delete_range: { key: encode(full) } } : put(full, text)],
    });
    return hasSucceeded(answer) ? revisionOf(answer) : null;
  }

  async watch(prefix: string, tell: () => void, signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closing]);
    const range = rangeOf(this.#root + prefix);
    const look = async () => {
      const answer = await this.#gateway.call("/v3/kv/range", { ...range, limit: "1", keys_only: true });
      if (!ending.aborted) tell();
      return revisionOf(answer);
    };
    await followRange(this.#gateway, this.#clock, range, look, tell, ending);
  }
}

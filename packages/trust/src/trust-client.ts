import { LockstepError } from "@lockstep/protocol/wire";
import type { Metadata, TargetFile, Targets } from "@tufjs/models";
import { EqualVersionError } from "tuf-js/dist/error.js";
import { TrustedMetadataStore } from "tuf-js/dist/store.js";
import { readSignedRevision, type SignedRevision } from "./claim.ts";
import { demandDistinctKeys, examine } from "./examine.ts";
import { expired, type Refusal, refused, trustFailure } from "./failure.ts";
import type { KeptMetadata } from "./metadata-store.ts";
import { readTargets } from "./publish.ts";
import type { DocumentSource } from "./source.ts";

/**
 * From a pinned root to what may be installed: TUF's client workflow (specification 1.0.34, section 5).
 *
 * The rules of acceptance are tuf-js's `TrustedMetadataStore`; the way there is ours, because the library's own client
 * writes trusted metadata so that a power cut can leave an empty root, and downloads without bounds (docs/adr/0010).
 * A document is examined (examine.ts), accepted by the library, held against different keys once more, made durable, and
 * only then acted upon, in the order root, timestamp, snapshot, targets: a crash between two leaves nothing older.
 *
 * Time is the clock's, but never earlier than the newest at which something was trusted here (A6): a clock that is set
 * back revives no expired metadata.
 */
const ROOT_ROTATIONS_MAX = 256;
const DELEGATIONS_MAX = 32;
const BYTES_MAX = { root: 512_000, timestamp: 16_384, snapshot: 2_000_000, targets: 5_000_000 };
/** How far the newest trusted time may lag behind: writing it with every poll would cost a sync each. */
const CLOCK_STEP_MS = 3_600_000;

export interface TrustClock {
  now(): number;
}

export class TrustClient {
  readonly #store: KeptMetadata;
  readonly #clock: TrustClock;
  readonly #trusted: TrustedMetadataStore;
  #newestTrusted: number;
  #shownOtherSnapshot = false;

  private constructor(store: KeptMetadata, clock: TrustClock, trusted: TrustedMetadataStore, newest: number) {
    this.#store = store;
    this.#clock = clock;
    this.#trusted = trusted;
    this.#newestTrusted = newest;
  }

  /** Pins a root: from now on nothing is trusted that it does not vouch for. Throws TRUST_REFUSED. */
  static async pin(store: KeptMetadata, root: Uint8Array): Promise<void> {
    load(root, "the root");
    await store.makeReady();
    await store.write("root", root);
  }

  /** Throws TRUST_ROOT_MISSING, or TRUST_DAMAGED when the pinned root is no longer what it was. */
  static async open(store: KeptMetadata, clock: TrustClock): Promise<TrustClient> {
    await store.makeReady();
    const root = store.read("root");
    if (root === null)
      throw new LockstepError("TRUST_ROOT_MISSING", "no root of trust is pinned here", {
        hint: "Pin one: lockstep trust pin DIR --root FILE.",
      });
    let trusted: TrustedMetadataStore;
    try {
      trusted = load(root, "the pinned root");
    } catch (cause) {
      throw new LockstepError("TRUST_DAMAGED", "the pinned root of trust cannot be read any more", {
        expected: "the root as it was pinned",
        found: cause instanceof LockstepError ? String(cause.found) : String(cause),
        hint: "Compare with the root that the release keys' owner hands out, then: lockstep trust pin DIR --root FILE.",
        cause,
      });
    }
    const newest = readClock(store.readRecord("clock"));
    return new TrustClient(store, clock, trusted, newest);
  }

  /** The time that decides about expiry, in milliseconds since 1970. */
  get referenceMs(): number {
    return Math.max(this.#clock.now(), this.#newestTrusted);
  }

  /**
   * Whether `refresh` was shown a timestamp that names another snapshot under the number of the one that is trusted. It was not
   * taken (TUF: whatever such a one says counts for nothing), and comes of a hub that was set back and went on from there.
   */
  get shownOtherSnapshot(): boolean {
    return this.#shownOtherSnapshot;
  }

  get root() {
    return this.#trusted.root.signed;
  }

  get timestamp() {
    return this.#trusted.timestamp?.signed ?? null;
  }

  get snapshot() {
    return this.#trusted.snapshot?.signed ?? null;
  }

  /** Top-level targets; null before `refresh` or `loadKept`. */
  get targets() {
    return this.#trusted.targets?.signed ?? null;
  }

  /**
   * Brings everything up to date. Throws TRUST_EXPIRED, TRUST_ROLLED_BACK, TRUST_REFUSED, TRUST_UNAVAILABLE and what the
   * source throws; what was accepted before that stays accepted.
   */
  async refresh(source: DocumentSource): Promise<void> {
    Reflect.set(this.#trusted, "referenceTime", new Date(this.referenceMs));
    await this.#refreshRoot(source);
    await this.#refreshTimestamp(source);
    await this.#refreshSnapshot(source);
    await this.#refreshTargets(source, "targets", "root");
    await this.#keepClock();
  }

  /** Verifies what is kept, without any network: for a process that goes on where another one refreshed. */
  async loadKept(): Promise<void> {
    Reflect.set(this.#trusted, "referenceTime", new Date(this.referenceMs));
    const none: DocumentSource = {
      fetch: async () => false,
    };
    const kept = this.#demandKept("timestamp");
    await this.#guarded("timestamp.json", kept, () => this.#acceptTimestamp(kept));
    await this.#refreshSnapshot(none);
    await this.#refreshTargets(none, "targets", "root");
  }

  /**
   * Reads a revision out of targets that the release keys signed, whenever that was: for going on with what was accepted
   * before. Throws TRUST_REFUSED.
   */
  readRevision(bytes: Uint8Array): SignedRevision {
    examine(bytes, "targets", "targets.json");
    demandDistinctKeys(this.#trusted.root, "targets", bytes, "targets");
    return readSignedRevision(readTargets(bytes).signed);
  }

  /** The revision that the current targets describe, and their bytes. `refresh` comes first. */
  currentRevision(): SignedRevision & { readonly bytes: Uint8Array } {
    const bytes = this.#demandKept("targets");
    return { ...this.readRevision(bytes), bytes };
  }

  /**
   * What the metadata says of a target, by pre-order walk over the delegations; null: nobody vouches for it. `refresh`
   * comes first. Throws like it.
   */
  async target(path: string, source: DocumentSource): Promise<TargetFile | null> {
    const visited = new Set<string>();
    const waiting: Delegation[] = [{ role: "targets", parent: "root" }];
    while (visited.size <= DELEGATIONS_MAX) {
      const next = waiting.pop();
      if (next === undefined) return null;
      if (visited.has(next.role)) continue;
      const { targets, delegations } = await this.#refreshTargets(source, next.role, next.parent);
      const found = Object.hasOwn(targets, path) ? targets[path] : undefined;
      if (found !== undefined) return found;
      visited.add(next.role);
      const children: Delegation[] = [];
      for (const { role, terminating } of delegations?.rolesForTarget(path) ?? []) {
        children.push({ role, parent: next.role });
        if (terminating) {
          waiting.length = 0;
          break;
        }
      }
      waiting.push(...children.reverse());
    }
    return null;
  }

  async #refreshRoot(source: DocumentSource): Promise<void> {
    for (let turns = 0; turns < ROOT_ROTATIONS_MAX; turns++) {
      const document = `${this.#trusted.root.signed.version + 1}.root.json`;
      const came = await source.fetch(document, BYTES_MAX.root, async (bytes) => {
        await this.#guarded(document, bytes, async () => {
          examine(bytes, "root", document);
          demandDistinctKeys(this.#trusted.root, "root", bytes, "root");
          const accepted = this.#trusted.updateRoot(Buffer.from(bytes));
          demandDistinctKeys(accepted, "root", bytes, "root");
          await this.#store.write("root", bytes);
        });
      });
      if (!came) return;
    }
  }

  async #refreshTimestamp(source: DocumentSource): Promise<void> {
    const kept = this.#store.read("timestamp");
    if (kept !== null) this.#attemptKept(() => this.#acceptTimestamp(kept));
    const document = "timestamp.json";
    const came = await source.fetch(document, BYTES_MAX.timestamp, async (bytes) => {
      await this.#guarded(document, bytes, async () => {
        try {
          this.#acceptTimestamp(bytes);
        } catch (error) {
          // The one that is here already; whatever else it says counts for nothing.
          if (error instanceof EqualVersionError) {
            this.#shownOtherSnapshot = kept !== null && snapshotOf(kept) !== snapshotOf(bytes);
            return this.#demandFresh();
          }
          throw error;
        }
        await this.#store.write("timestamp", bytes);
      });
    });
    if (!came) throw unavailable(document);
  }

  #acceptTimestamp(bytes: Uint8Array): void {
    examine(bytes, "timestamp", "timestamp.json");
    demandDistinctKeys(this.#trusted.root, "timestamp", bytes, "timestamp");
    this.#trusted.updateTimestamp(Buffer.from(bytes));
  }

  /** A timestamp of the same number can be one that has expired since: said here rather than by the next document. */
  #demandFresh(): void {
    const { timestamp } = this.#trusted;
    if (timestamp?.signed.isExpired(new Date(this.referenceMs)) !== true) return;
    throw expired({ role: "timestamp", expires: timestamp.signed.expires }, this.#time());
  }

  async #refreshSnapshot(source: DocumentSource): Promise<void> {
    const kept = this.#store.read("snapshot");
    if (kept !== null && this.#attemptKept(() => this.#acceptSnapshot(kept, true))) return;
    const meta = this.timestamp?.snapshotMeta;
    const document = this.#documentName("snapshot", meta?.version ?? 0);
    const came = await source.fetch(document, meta?.length ?? BYTES_MAX.snapshot, async (bytes) => {
      await this.#guarded(document, bytes, async () => {
        this.#acceptSnapshot(bytes, false);
        await this.#store.write("snapshot", bytes);
      });
    });
    if (!came) throw unavailable(document);
  }

  #acceptSnapshot(bytes: Uint8Array, kept: boolean): void {
    examine(bytes, "snapshot", "snapshot.json");
    demandDistinctKeys(this.#trusted.root, "snapshot", bytes, "snapshot");
    this.#trusted.updateSnapshot(Buffer.from(bytes), kept);
  }

  async #refreshTargets(source: DocumentSource, role: string, parent: string): Promise<Targets> {
    const delegator = parent === "root" ? this.#trusted.root : this.#trusted.getRole(parent);
    if (delegator === undefined) throw refused(role, `no trusted ${parent}`);
    const loaded = this.#trusted.getRole(role);
    if (loaded !== undefined && role !== "root") {
      // Reached a second way: this parent has to vouch for it as well (A18).
      await this.#guarded(role, null, async () => delegator.verifyDelegate(role, loaded));
      return loaded.signed;
    }
    const kept = this.#store.read(role);
    if (kept !== null && this.#attemptKept(() => this.#acceptTargets(kept, role, parent, delegator)))
      return this.#demandTargets(role);
    const meta = this.snapshot?.meta[`${role}.json`];
    if (meta === undefined) throw refused(role, "the snapshot does not name it");
    const document = this.#documentName(encodeURIComponent(role), meta.version);
    const came = await source.fetch(document, meta.length ?? BYTES_MAX.targets, async (bytes) => {
      await this.#guarded(document, bytes, async () => {
        this.#acceptTargets(bytes, role, parent, delegator);
        await this.#store.write(role, bytes);
      });
    });
    if (!came) throw unavailable(document);
    return this.#demandTargets(role);
  }

  #acceptTargets(bytes: Uint8Array, role: string, parent: string, delegator: Delegator): void {
    examine(bytes, "targets", role);
    demandDistinctKeys(delegator, role, bytes, "targets");
    this.#trusted.updateDelegatedTargets(Buffer.from(bytes), role, parent);
  }

  #demandTargets(role: string): Targets {
    const found = this.#trusted.getRole(role);
    if (found === undefined) throw refused(role, "it was not accepted");
    return found.signed;
  }

  #documentName(role: string, version: number): string {
    return this.root.consistentSnapshot ? `${version}.${role}.json` : `${role}.json`;
  }

  #demandKept(role: string): Uint8Array {
    const bytes = this.#store.read(role);
    if (bytes === null) throw unavailable(`${role}.json`);
    return bytes;
  }

  /** Tries what is kept: what does not hold any more (rotated keys, a newer snapshot) is fetched instead. */
  #attemptKept(accept: () => void): boolean {
    try {
      accept();
      return true;
    } catch {
      return false;
    }
  }

  /** `bytes`: what came, where something did. */
  async #guarded(document: string, bytes: Uint8Array | null, act: () => Promise<void> | void): Promise<void> {
    const former = { timestamp: this.timestamp, snapshot: this.snapshot };
    try {
      await act();
    } catch (error) {
      const refusal: Refusal | null =
        bytes === null ? null : { bytes, former, trusted: this.#trusted, time: this.#time() };
      throw trustFailure(error, document, refusal);
    }
  }

  #time() {
    return { referenceMs: this.referenceMs, clockMs: this.#clock.now() };
  }

  async #keepClock(): Promise<void> {
    const now = this.#clock.now();
    if (now < this.#newestTrusted + CLOCK_STEP_MS) return;
    this.#newestTrusted = now;
    await this.#store.writeRecord("clock", Buffer.from(`${now}\n`));
  }
}

interface Delegation {
  readonly role: string;
  readonly parent: string;
}

type Delegator = Parameters<typeof demandDistinctKeys>[0];

/**
 * Demands that a root may follow another: the next version, signed by enough keys of both. Throws TRUST_REFUSED,
 * TRUST_ROLLED_BACK.
 */
export function demandNextRoot(present: Uint8Array, next: Uint8Array): void {
  const trusted = load(present, "the present root");
  try {
    examine(next, "root", "the next root");
    demandDistinctKeys(trusted.root, "root", next, "root");
    demandDistinctKeys(trusted.updateRoot(Buffer.from(next)), "root", next, "root");
  } catch (error) {
    // Whether a root is out of date is not asked here: a later one may follow it.
    const time = { referenceMs: 0, clockMs: 0 };
    const former = { timestamp: null, snapshot: null };
    throw trustFailure(error, "the next root", { bytes: next, trusted, former, time });
  }
}

/** Verifies a root by itself. Throws TRUST_REFUSED. */
function load(bytes: Uint8Array, document: string): TrustedMetadataStore {
  try {
    examine(bytes, "root", document);
    const trusted = new TrustedMetadataStore(Buffer.from(bytes));
    demandDistinctKeys(trusted.root, "root", bytes, "root");
    return trusted;
  } catch (error) {
    throw trustFailure(error, document);
  }
}

/** Which snapshot a timestamp names; both were examined and verified. */
function snapshotOf(timestamp: Uint8Array): string {
  const { signed } = JSON.parse(Buffer.from(timestamp).toString("utf8")) as {
    signed: { meta: Record<string, { version?: number; hashes?: { sha256?: string } } | undefined> };
  };
  const { version, hashes } = signed.meta["snapshot.json"] ?? {};
  return `${version} ${hashes?.sha256}`;
}

function readClock(bytes: Uint8Array | null): number {
  const text = bytes === null ? "" : Buffer.from(bytes).toString("latin1").trim();
  return /^\d{1,15}$/.test(text) ? Number(text) : 0;
}

function unavailable(document: string): LockstepError {
  return new LockstepError("TRUST_UNAVAILABLE", `the hub does not offer ${document}`, {
    expected: document,
    found: "nothing under that name",
    hint: "Nothing was taken. Is that hub older than the root that is pinned here, or was its database emptied?",
  });
}

export type { Metadata, TargetFile };

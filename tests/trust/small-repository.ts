import {
  addSignatures,
  EMPTY_LOG,
  encodeMetadata,
  type KeyRole,
  type LogHead,
  type Mirror,
  makeRoot,
  makeSecret,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  type Signer,
  signerOf,
} from "@lockstep/trust";

/** A day, in milliseconds. */
export const DAY = 86_400_000;
export const NOW = 1_800_000_000_000;

type Documents = Map<string, Uint8Array>;

/**
 * A repository of signed metadata in memory, whose owner may do everything wrong that a hub or a thief could: publish with
 * too few keys, old ones, other people's, in any order, and put any bytes in a document's place.
 */
export class SmallRepository {
  readonly documents: Documents = new Map();
  readonly requests: string[] = [];
  signers: Record<KeyRole, Signer[]>;
  thresholds: Record<KeyRole, number> = { root: 1, targets: 1, snapshot: 1, timestamp: 1 };
  now = NOW;
  expiresMs: Record<KeyRole, number> = {
    root: 365 * DAY,
    targets: 90 * DAY,
    snapshot: 30 * DAY,
    timestamp: 3 * DAY,
  };
  versions: Record<KeyRole, number> = { root: 0, targets: 0, snapshot: 0, timestamp: 0 };
  epoch = 0;

  private constructor(signers: Record<KeyRole, Signer[]>) {
    this.signers = signers;
  }

  static async make(keys: Partial<Record<KeyRole, number>> = {}): Promise<SmallRepository> {
    const make = (role: KeyRole) => Array.from({ length: keys[role] ?? 1 }, () => signerOf(makeSecret()));
    const repository = new SmallRepository({
      root: make("root"),
      targets: make("targets"),
      snapshot: make("snapshot"),
      timestamp: make("timestamp"),
    });
    await repository.publishRoot();
    await repository.publishRevision(1);
    return repository;
  }

  /** An independent repository in the same state: a backup, or the hub of a thief. */
  clone(): SmallRepository {
    const copy = new SmallRepository({ ...this.signers });
    for (const [name, bytes] of this.documents) copy.documents.set(name, bytes);
    Object.assign(copy, {
      thresholds: { ...this.thresholds },
      now: this.now,
      expiresMs: { ...this.expiresMs },
      versions: { ...this.versions },
      epoch: this.epoch,
    });
    return copy;
  }

  get root(): Uint8Array {
    return this.document(`${this.versions.root}.root.json`);
  }

  document(name: string): Uint8Array {
    const bytes = this.documents.get(name);
    if (bytes === undefined) throw new RangeError(name);
    return bytes;
  }

  /** The next root, signed by these (default: all root keys that are in it). */
  async publishRoot(signers: readonly Signer[] = this.signers.root): Promise<void> {
    const version = ++this.versions.root;
    const role = (name: KeyRole) => ({
      keys: this.signers[name].map(({ key }) => key),
      threshold: this.thresholds[name],
    });
    const root = makeRoot({
      version,
      expiresMs: this.now + this.expiresMs.root,
      epoch: this.epoch,
      roles: {
        root: role("root"),
        targets: role("targets"),
        snapshot: role("snapshot"),
        timestamp: role("timestamp"),
      },
    });
    await addSignatures(root, signers);
    this.documents.set(`${version}.root.json`, encodeMetadata(root));
  }

  /** Targets, snapshot and timestamp for a software revision of one manifest. */
  async publishRevision(
    revision: number,
    log: LogHead = EMPTY_LOG,
    manifest: { readonly sha256: string; readonly size: number } = { sha256: "ab".repeat(32), size: 10 },
  ): Promise<void> {
    const targets = makeTargets(++this.versions.targets, this.now + this.expiresMs.targets, {
      document: {
        number: revision,
        digest: revision.toString(16).padStart(64, "0"),
        createdAt: this.now,
        manifests: [{ target: "role:Server", ...manifest, files: 1, bytes: 1 }],
        updateArchive: null,
        packageClosure: {},
        selectableRoles: ["Server"],
        selectablePackages: [],
      },
      log,
    });
    await addSignatures(targets, this.signers.targets);
    this.documents.set(`${this.versions.targets}.targets.json`, encodeMetadata(targets));
    await this.publishSnapshot();
  }

  async publishSnapshot(): Promise<void> {
    const version = this.versions.targets;
    const bytes = this.document(`${version}.targets.json`);
    const snapshot = makeSnapshot(++this.versions.snapshot, this.now + this.expiresMs.snapshot, {
      version,
      bytes,
    });
    await addSignatures(snapshot, this.signers.snapshot);
    this.documents.set(`${this.versions.snapshot}.snapshot.json`, encodeMetadata(snapshot));
    await this.publishTimestamp();
  }

  async publishTimestamp(): Promise<void> {
    const version = this.versions.snapshot;
    const bytes = this.document(`${version}.snapshot.json`);
    const timestamp = makeTimestamp(++this.versions.timestamp, this.now + this.expiresMs.timestamp, {
      version,
      bytes,
    });
    await addSignatures(timestamp, this.signers.timestamp);
    this.documents.set("timestamp.json", encodeMetadata(timestamp));
  }

  /** Puts a document in place of another, its `signed` part changed and signed anew by the role's keys. */
  async alter(name: string, role: KeyRole, change: (signed: Record<string, unknown>) => void): Promise<void> {
    const document = JSON.parse(Buffer.from(this.document(name)).toString()) as {
      signed: Record<string, unknown>;
    };
    change(document.signed);
    this.documents.set(name, await signedJson(document.signed, this.signers[role]));
  }

  mirror(name = "hub"): Mirror {
    return {
      name,
      open: async (document, from) => {
        this.requests.push(document);
        const bytes = this.documents.get(document);
        if (bytes === undefined) return null;
        return { offset: from, chunks: oneChunk(bytes.subarray(from)) };
      },
    };
  }
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Any value as a signed document, whatever the models think of it. Members are written in order of their names. */
export async function signedJson(signed: unknown, signers: readonly Signer[]): Promise<Uint8Array> {
  const bytes = Buffer.from(canonical(signed));
  const signatures = await Promise.all(
    signers.map(async (signer) => ({
      keyid: signer.key.id,
      sig: Buffer.from(await signer.sign(bytes)).toString("hex"),
    })),
  );
  return Buffer.from(JSON.stringify({ signatures, signed }));
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null)
    return `{${Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, each]) => `${canonical(name)}:${canonical(each)}`)
      .join(",")}}`;
  if (typeof value === "string") return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  return JSON.stringify(value);
}

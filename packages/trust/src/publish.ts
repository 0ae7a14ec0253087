import { createHash } from "node:crypto";
import { Metadata, MetadataKind, MetaFile, Root, Snapshot, Targets, Timestamp } from "@tufjs/models";
import { describeRevision, type SignedRevision } from "./claim.ts";
import { KEY_ROLES, type KeyRole } from "./key-file.ts";
import { type PublicKey, publicKey, toModelKey } from "./signer.ts";

/**
 * Writing metadata, by the same models that read it. Times in milliseconds since 1970; versions only grow.
 *
 * Snapshot and timestamp name their files with length and digest, so that what a mirror gives is held to both before it
 * is parsed, and a snapshot of one moment cannot be joined with targets of another.
 */
const SPECIFICATION = "1.0.34";

export interface RoleKeys {
  readonly keys: readonly PublicKey[];
  readonly threshold: number;
}

export interface RootContent {
  readonly version: number;
  readonly expiresMs: number;
  readonly roles: Readonly<Record<KeyRole, RoleKeys>>;
  /** Grows when history has to begin anew, with the consent of the root keys: `lockstep keys recover`. */
  readonly epoch: number;
  /** Keys that may sign orders (order.ts), one of which is enough. No role of TUF's, so it stands in a member of ours. */
  readonly orders?: readonly PublicKey[];
}

export function makeRoot({ version, expiresMs, roles, epoch, orders = [] }: RootContent): Metadata<Root> {
  const root = new Root({
    version,
    expires: time(expiresMs),
    specVersion: SPECIFICATION,
    consistentSnapshot: true,
    keys: {},
    unrecognizedFields: {
      lockstep: {
        format: 1,
        epoch,
        ...(orders.length === 0 ? {} : { orders: orders.map((key) => key.public) }),
      },
    },
  });
  for (const name of KEY_ROLES) {
    const { keys, threshold } = roles[name];
    for (const key of keys) root.addKey(toModelKey(key), name);
    const role = root.roles[name];
    if (role !== undefined) Object.assign(role, { threshold });
  }
  return new Metadata(root);
}

/** What of ours a root says. Roots of others are of epoch 0. */
export function epochOf(root: { readonly unrecognizedFields?: Record<string, unknown> | undefined }): number {
  const member = root.unrecognizedFields?.lockstep;
  const epoch = typeof member === "object" && member !== null && "epoch" in member ? member.epoch : 0;
  return Number.isSafeInteger(epoch) ? (epoch as number) : 0;
}

/** Who may sign orders, as a root says. */
export function orderKeysOf(root: {
  readonly unrecognizedFields?: Record<string, unknown> | undefined;
}): RoleKeys {
  const member = root.unrecognizedFields?.lockstep;
  const orders = typeof member === "object" && member !== null && "orders" in member ? member.orders : [];
  const keys = (Array.isArray(orders) ? orders : []).flatMap((hex: unknown) =>
    typeof hex === "string" && /^[0-9a-f]{64}$/.test(hex) ? [publicKey(hex)] : [],
  );
  return { keys, threshold: 1 };
}

/** The keys of each role of a root. */
export function rolesOf(root: Root): Record<KeyRole, RoleKeys> {
  const read = (name: KeyRole): RoleKeys => ({
    keys: (root.roles[name]?.keyIDs ?? []).flatMap((id) => {
      const hex = root.keys[id]?.keyVal.public;
      return hex === undefined ? [] : [{ id, public: hex }];
    }),
    threshold: root.roles[name]?.threshold ?? 1,
  });
  return {
    root: read("root"),
    targets: read("targets"),
    snapshot: read("snapshot"),
    timestamp: read("timestamp"),
  };
}

export function makeTargets(version: number, expiresMs: number, revision: SignedRevision): Metadata<Targets> {
  const { targets, member } = describeRevision(revision);
  return new Metadata(
    new Targets({
      version,
      expires: time(expiresMs),
      specVersion: SPECIFICATION,
      targets,
      unrecognizedFields: member as Record<string, never>,
    }),
  );
}

export function makeSnapshot(
  version: number,
  expiresMs: number,
  targets: { readonly version: number; readonly bytes: Uint8Array },
): Metadata<Snapshot> {
  return new Metadata(
    new Snapshot({
      version,
      expires: time(expiresMs),
      specVersion: SPECIFICATION,
      meta: { "targets.json": metaFile(targets) },
    }),
  );
}

/** `member`: what else it says (ordered.ts). */
export function makeTimestamp(
  version: number,
  expiresMs: number,
  snapshot: { readonly version: number; readonly bytes: Uint8Array },
  member: Readonly<Record<string, unknown>> = {},
): Metadata<Timestamp> {
  return new Metadata(
    new Timestamp({
      version,
      expires: time(expiresMs),
      specVersion: SPECIFICATION,
      snapshotMeta: metaFile(snapshot),
      unrecognizedFields: member as Record<string, never>,
    }),
  );
}

/** Reads metadata of one kind that was verified before. */
export function readRoot(bytes: Uint8Array): Metadata<Root> {
  return Metadata.fromJSON(MetadataKind.Root, JSON.parse(Buffer.from(bytes).toString("utf8")));
}

export function readTargets(bytes: Uint8Array): Metadata<Targets> {
  return Metadata.fromJSON(MetadataKind.Targets, JSON.parse(Buffer.from(bytes).toString("utf8")));
}

export function readTimestamp(bytes: Uint8Array): Metadata<Timestamp> {
  return Metadata.fromJSON(MetadataKind.Timestamp, JSON.parse(Buffer.from(bytes).toString("utf8")));
}

function metaFile({ version, bytes }: { readonly version: number; readonly bytes: Uint8Array }): MetaFile {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return new MetaFile({ version, length: bytes.length, hashes: { sha256 } });
}

function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

import type { RevisionDocument } from "@lockstep/protocol";
import {
  addSignatures,
  appendEntry,
  EMPTY_LOG,
  encodeMetadata,
  type LogHead,
  makeRoot,
  makeSecret,
  makeSnapshot,
  makeTargets,
  makeTimestamp,
  signerOf,
} from "@lockstep/trust";

const DAY = 86_400_000;

/** Signs what a small hub publishes, when it is asked for: one key for all, honest unless a test makes it otherwise. */
export class SmallSigning {
  readonly documents = new Map<string, Uint8Array>();
  signer = signerOf(makeSecret());
  now: () => number = Date.now;
  timestampMs = DAY;
  /** What the timestamp says of orders; nothing, like a hub of an older version. */
  ordered: (now: number) => Readonly<Record<string, unknown>> = () => ({});
  #signed = 0;

  async sign(revisions: readonly RevisionDocument[]): Promise<void> {
    const { length: version } = revisions;
    const document = revisions[version - 1];
    if (this.#signed === version || document === undefined) return;
    this.#signed = version;
    const now = this.now();
    if (!this.documents.has("1.root.json")) {
      const role = { keys: [this.signer.key], threshold: 1 };
      const roles = { root: role, targets: role, snapshot: role, timestamp: role };
      const root = makeRoot({ version: 1, expiresMs: now + 365 * DAY, epoch: 1, roles });
      await addSignatures(root, [this.signer]);
      this.documents.set("1.root.json", encodeMetadata(root)).set("root.json", encodeMetadata(root));
    }
    const targets = makeTargets(version, now + 90 * DAY, { document, log: headOf(revisions) });
    await addSignatures(targets, [this.signer]);
    const targetsBytes = encodeMetadata(targets);
    const snapshot = makeSnapshot(version, now + 30 * DAY, { version, bytes: targetsBytes });
    await addSignatures(snapshot, [this.signer]);
    const snapshotBytes = encodeMetadata(snapshot);
    const expires = now + this.timestampMs;
    const timestamp = makeTimestamp(version, expires, { version, bytes: snapshotBytes }, this.ordered(now));
    await addSignatures(timestamp, [this.signer]);
    this.documents.set(`${version}.targets.json`, targetsBytes);
    this.documents.set(`${version}.snapshot.json`, snapshotBytes);
    this.documents.set("timestamp.json", encodeMetadata(timestamp));
  }

  entries(revisions: readonly RevisionDocument[], after: number): string {
    const entries = revisions
      .map(({ number, digest }, index) => ({ index: index + 1, revision: number, digest }))
      .slice(after);
    return JSON.stringify({ entries });
  }
}

function headOf(revisions: readonly RevisionDocument[]): LogHead {
  return revisions.reduce<LogHead>(
    (log, { number, digest }, index) => appendEntry(log, { index: index + 1, revision: number, digest }),
    EMPTY_LOG,
  );
}

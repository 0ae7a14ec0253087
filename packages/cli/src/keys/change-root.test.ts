import assert from "node:assert/strict";
import test from "node:test";
import type { HubClient } from "@lockstep/client";
import { isLockstepError, type RevisionDocument } from "@lockstep/protocol/wire";
import {
  addSignatures,
  appendEntry,
  EMPTY_LOG,
  encodeMetadata,
  epochOf,
  isSignedBy,
  makeRoot,
  makeSecret,
  makeTargets,
  readRoot,
  readSignedRevision,
  readTargets,
  rolesOf,
  type Signer,
  signerOf,
} from "@lockstep/trust";
import { changeRoot } from "./change-root.ts";

const FAR_MS = Date.UTC(2100, 0, 1);
const DIGEST = "a".repeat(64);
const [rootKey, releaseKey, onlineKey, stranger] = [1, 2, 3, 4].map(() => signerOf(makeSecret())) as [
  Signer,
  Signer,
  Signer,
  Signer,
];

/** A hub that shows these documents, whoever signed them, and keeps the root that it is given. */
async function hubShowing(rootSigner: Signer, releaseNamed: Signer, releaseSigner: Signer) {
  const role = ({ key }: Signer) => ({ keys: [key], threshold: 1 });
  const root = makeRoot({
    version: 1,
    expiresMs: FAR_MS,
    epoch: 1,
    roles: {
      root: role(rootKey),
      targets: role(releaseNamed),
      snapshot: role(onlineKey),
      timestamp: role(onlineKey),
    },
  });
  await addSignatures(root, [rootSigner]);
  const document: RevisionDocument = {
    number: 2,
    digest: DIGEST,
    createdAt: Date.UTC(2026, 0, 1),
    updateArchive: null,
    manifests: [],
    packageClosure: {},
    selectableRoles: [],
    selectablePackages: [],
  };
  const first = appendEntry(EMPTY_LOG, { index: 1, revision: 1, digest: "b".repeat(64) });
  const log = appendEntry(first, { index: 2, revision: 2, digest: DIGEST });
  const targets = makeTargets(1, FAR_MS, { document, log });
  await addSignatures(targets, [releaseSigner]);
  const documents = new Map([
    ["root.json", encodeMetadata(root)],
    ["1.targets.json", encodeMetadata(targets)],
  ]);
  const put: { root: string; targets: string | null }[] = [];
  const hub = {
    signedDocument: async (name: string) => documents.get(name) ?? assert.fail(name),
    signingStatus: async () => ({ roles: [{ role: "targets", version: 1 }] }),
    putRoot: async (next: string, signed: string | null) => void put.push({ root: next, targets: signed }),
  };
  return { hub: hub as unknown as HubClient, put };
}

const isNotOurs = (message: RegExp) => (error: unknown) =>
  isLockstepError(error, "TRUST_REFUSED") && message.test(error.message);

const change = {
  roles: { timestamp: { keys: [stranger.key], threshold: 1 } },
  formerSigners: [rootKey],
  releaseSigners: [releaseKey],
};

test("a root and a revision that our keys signed are taken over", async () => {
  const { hub, put } = await hubShowing(rootKey, releaseKey, releaseKey);
  await changeRoot(hub, change);
  const next = readRoot(Buffer.from(put[0]?.root ?? "")).signed;
  assert.equal(next.version, 2);
  assert.deepEqual(rolesOf(next).targets.keys, [releaseKey.key]);
  const targets = readTargets(Buffer.from(put[0]?.targets ?? "")).signed;
  assert.deepEqual([targets.version, readSignedRevision(targets).log.size], [2, 2]);
});

test("what is made is signed by the keys that are here, those that count now and the new ones", async () => {
  const { hub, put } = await hubShowing(rootKey, releaseKey, releaseKey);
  // One of several that signed before is enough: not each of them need have.
  await changeRoot(hub, { ...change, formerSigners: [onlineKey, rootKey], newSigners: [stranger] });
  const next = readRoot(Buffer.from(put[0]?.root ?? ""));
  assert.deepEqual(
    [rootKey, stranger, releaseKey].map(({ key }) => isSignedBy(next, key)),
    [true, true, false],
  );
  assert.ok(isSignedBy(readTargets(Buffer.from(put[0]?.targets ?? "")), releaseKey.key));
});

test("a new epoch begins the log of releases anew", async () => {
  const { hub, put } = await hubShowing(rootKey, releaseKey, releaseKey);
  await changeRoot(hub, { ...change, newEpoch: true });
  assert.equal(epochOf(readRoot(Buffer.from(put[0]?.root ?? "")).signed), 2);
  assert.equal(readSignedRevision(readTargets(Buffer.from(put[0]?.targets ?? "")).signed).log.size, 1);
});

test("where the hub has the root keys, nothing here could be held against it", async () => {
  const { hub, put } = await hubShowing(rootKey, releaseKey, stranger);
  await changeRoot(hub, { ...change, formerSigners: [] });
  assert.equal(put.length, 1);
});

test("a root with another release key, which a hub puts in the place of ours, is not signed", async () => {
  const { hub, put } = await hubShowing(stranger, stranger, stranger);
  await assert.rejects(changeRoot(hub, change), isNotOurs(/^the root that/));
  assert.deepEqual(put, []);
});

test("a revision that no release key signed is not signed anew", async () => {
  const { hub, put } = await hubShowing(rootKey, releaseKey, stranger);
  await assert.rejects(changeRoot(hub, change), isNotOurs(/^1\.targets\.json that/));
  assert.deepEqual(put, []);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import { TrustedMetadataStore } from "tuf-js/dist/store.js";
import { demandDistinctKeys } from "./examine.ts";
import { encodeMetadata, makeRoot, makeTimestamp } from "./index.ts";
import { addSignatures, makeSecret, type Signer, signerOf } from "./signer.ts";

test("A16: the library counts ids, we count keys", async () => {
  const signer = signerOf(makeSecret());
  const twin: Signer = { ...signer, key: { ...signer.key, id: "aa".repeat(32) } };
  const one = { keys: [signer.key], threshold: 1 };
  const expiresMs = Date.now() + 86_400_000;
  const root = makeRoot({
    version: 1,
    expiresMs,
    epoch: 0,
    roles: {
      root: one,
      targets: one,
      snapshot: one,
      timestamp: { keys: [signer.key, twin.key], threshold: 2 },
    },
  });
  await addSignatures(root, [signer]);
  const timestamp = makeTimestamp(1, expiresMs, { version: 1, bytes: new Uint8Array(3) });
  await addSignatures(timestamp, [signer, twin]);
  const bytes = encodeMetadata(timestamp);

  const library = new TrustedMetadataStore(Buffer.from(encodeMetadata(root)));
  library.updateTimestamp(Buffer.from(bytes));
  assert.equal(library.timestamp?.signed.version, 1);
  assert.throws(
    () => demandDistinctKeys(root, "timestamp", bytes, "timestamp"),
    (error) => isLockstepError(error, "TRUST_REFUSED"),
  );
});

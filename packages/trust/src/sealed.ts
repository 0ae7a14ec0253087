import { createPublicKey, verify } from "node:crypto";
import { isSha256 } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import type { RoleKeys } from "./publish.ts";
import type { PublicKey, Signer } from "./signer.ts";
import { isRecord, readStrictJson } from "./strict-json.ts";

/**
 * Small signed documents of ours beside TUF's metadata: orders and permits.
 *
 * What is signed is a text under the name of its format, so that no signature of one kind of document is ever one of
 * another kind, and nothing has to be brought into a canonical form. TUF's own signed bytes begin with a brace, so a release
 * key that signs a permit signs no targets with it.
 */
const SIGNATURES_MAX = 16;
export const SEALED_BYTES_MAX = 16_384;

export type SealedFormat = "lockstep-order/1" | "lockstep-permit/1";

/** The text of a document with the signatures of these signers. */
export async function seal(
  format: SealedFormat,
  content: Readonly<Record<string, unknown>>,
  signers: readonly Signer[],
): Promise<string> {
  const body = JSON.stringify(content);
  const signatures: { keyId: string; signature: string }[] = [];
  for (const signer of signers)
    signatures.push({
      keyId: signer.key.id,
      signature: Buffer.from(await signer.sign(bytesOf(format, body))).toString("hex"),
    });
  return JSON.stringify({ format, body, signatures });
}

/** What enough of these keys signed. Throws ORDER_REFUSED. */
export function unseal(
  format: SealedFormat,
  text: string,
  { keys, threshold }: RoleKeys,
): Readonly<Record<string, unknown>> {
  if (text.length > SEALED_BYTES_MAX) throw orderRefused("it is longer than such a document is");
  const outer = readStrictJson(Buffer.from(text));
  const document = "value" in outer ? outer.value : null;
  if (!isRecord(document) || document.format !== format || typeof document.body !== "string")
    throw orderRefused(`no document of the format ${format}`);
  const { body, signatures } = document;
  if (!Array.isArray(signatures) || signatures.length > SIGNATURES_MAX)
    throw orderRefused("its signatures cannot be read");
  const signed = new Set<string>();
  for (const each of signatures) {
    const key = isRecord(each) ? keys.find(({ id }) => id === each.keyId) : undefined;
    if (key === undefined || !isRecord(each) || typeof each.signature !== "string") continue;
    // Keys are counted by what they are, not by their names.
    if (holds(key, bytesOf(format, body), each.signature)) signed.add(key.public);
  }
  if (keys.length === 0 || signed.size < Math.max(1, threshold))
    throw orderRefused(`${signed.size} good signatures of the ${Math.max(1, threshold)} that are needed`);
  const inner = readStrictJson(Buffer.from(body));
  if ("value" in inner && isRecord(inner.value)) return inner.value;
  throw orderRefused("what is signed cannot be read");
}

/** Whether an ed25519 signature, in hexadecimal, is this key's for these bytes. */
export function holds(key: Pick<PublicKey, "public">, bytes: Uint8Array, signature: string): boolean {
  if (!/^[0-9a-f]{128}$/.test(signature)) return false;
  try {
    const x = Buffer.from(key.public, "hex").toString("base64url");
    const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    return verify(null, bytes, publicKey, Buffer.from(signature, "hex"));
  } catch {
    return false;
  }
}

function bytesOf(format: SealedFormat, body: string): Uint8Array {
  return Buffer.from(`${format}\n${body}`);
}

/** An order or a permit that counts for nothing. */
export function orderRefused(
  found: string,
  expected = "an order that the pinned root vouches for",
): LockstepError {
  return new LockstepError("ORDER_REFUSED", "the hub gives an order that this installation must not follow", {
    expected,
    found,
    hint: "Nothing was changed. Somebody between here and the hub altered it, or it is meant for somebody else.",
  });
}

/** The software revision that a document names, with the signed targets that describe it. */
export interface Destination {
  readonly revision: number;
  /** The digest of everything that the revision stands for. */
  readonly digest: string;
  readonly targets: { readonly version: number; readonly sha256: string };
}

export function readDestination(value: unknown): Destination | null {
  if (!isRecord(value as never)) return null;
  const { revision, digest, targets } = value as Record<string, unknown>;
  if (!isPositive(revision) || !isSha256(digest) || !isRecord(targets as never)) return null;
  const { version, sha256 } = targets as Record<string, unknown>;
  if (!isPositive(version) || !isSha256(sha256)) return null;
  return { revision, digest, targets: { version, sha256 } };
}

export function isPositive(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

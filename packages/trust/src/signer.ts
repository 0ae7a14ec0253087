import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from "node:crypto";
import { Key, type Metadata, type Root, Signature, type Targets } from "@tufjs/models";

/**
 * Who can sign: a key whose secret nobody here needs to see. A hardware token, a key service and a key in memory look
 * the same through this port, which is the part of PKCS#11 that signing needs: a public key, and a signature for bytes.
 */
export interface Signer {
  readonly key: PublicKey;
  /** The ed25519 signature of these bytes, 64 bytes. May ask somebody to touch something. */
  sign(bytes: Uint8Array): Promise<Uint8Array>;
}

/** An ed25519 public key under TUF's name for it. */
export interface PublicKey {
  /** SHA-256 of the key's canonical document, hexadecimal. */
  readonly id: string;
  /** 32 bytes, hexadecimal. */
  readonly public: string;
}

/** The key with this public part, 64 hexadecimal digits. */
export function publicKey(hex: string): PublicKey {
  if (!/^[0-9a-f]{64}$/.test(hex)) throw new RangeError("an ed25519 public key has 64 hexadecimal digits");
  const canonical = `{"keytype":"ed25519","keyval":{"public":"${hex}"},"scheme":"ed25519"}`;
  return { id: createHash("sha256").update(canonical).digest("hex"), public: hex };
}

/** The same as the library's model has it. */
export function toModelKey({ id, public: hex }: PublicKey): Key {
  return new Key({ keyID: id, keyType: "ed25519", scheme: "ed25519", keyVal: { public: hex } });
}

/** A new key. The secret is PKCS#8 in DER; keep it in a key file (key-file.ts). */
export function makeSecret(): Uint8Array {
  return generateKeyPairSync("ed25519").privateKey.export({ format: "der", type: "pkcs8" });
}

/** Signs with a secret in memory. Throws what node:crypto says of bytes that are no ed25519 key. */
export function signerOf(secret: Uint8Array): Signer {
  const key = createPrivateKey({ key: Buffer.from(secret), format: "der", type: "pkcs8" });
  if (key.asymmetricKeyType !== "ed25519") throw new RangeError(`a key of type ${key.asymmetricKeyType}`);
  return { key: publicKey(rawPublic(key)), sign: async (bytes) => sign(null, bytes, key) };
}

function rawPublic(secret: KeyObject): string {
  const { x } = createPublicKey(secret).export({ format: "jwk" });
  return Buffer.from(x ?? "", "base64url").toString("hex");
}

/** The model of any metadata: only its kind differs. */
type AnyMetadata = { sign(signer: (bytes: Buffer) => Signature, append?: boolean): void };

/** Adds a signature of each signer. The order of signatures is that of the signers. */
export async function addSignatures(metadata: AnyMetadata, signers: readonly Signer[]): Promise<void> {
  for (const signer of signers) {
    const signature = Buffer.from(await signer.sign(bytesToSign(metadata, signer.key.id))).toString("hex");
    metadata.sign(() => new Signature({ keyID: signer.key.id, sig: signature }));
  }
}

const NOBODY = "nobody";

/** What a signature of this metadata signs: the canonical form of its signed part, as the library writes it. */
export function bytesToSign(metadata: AnyMetadata, keyId = NOBODY): Uint8Array {
  let bytes: Uint8Array = new Uint8Array(0);
  // The library hands the canonical bytes to its signer and keeps what that returns; a signature follows at once.
  metadata.sign((canonical) => {
    bytes = Uint8Array.from(canonical);
    return new Signature({ keyID: keyId, sig: "" });
  });
  return bytes;
}

/** Whether a key signed this, by the key itself and not by what the metadata says of it. */
export function isSignedBy(metadata: Metadata<Root | Targets>, key: PublicKey): boolean {
  try {
    toModelKey(key).verifySignature(metadata);
    return true;
  } catch {
    return false;
  }
}

/** Takes over the signatures of the same document that somebody else made; those of another document are refused. */
export function mergeSignatures<M extends AnyMetadata & { readonly signatures: Record<string, Signature> }>(
  into: M,
  from: M,
): void {
  if (!Buffer.from(bytesToSign(into)).equals(Buffer.from(bytesToSign(from))))
    throw new RangeError("signatures of another document");
  delete into.signatures[NOBODY];
  delete from.signatures[NOBODY];
  Object.assign(into.signatures, from.signatures);
}

/** The bytes of a document as they are served and stored. */
export function encodeMetadata(metadata: { toJSON(): unknown }): Uint8Array {
  return Buffer.from(`${JSON.stringify(metadata.toJSON())}\n`);
}

export type { Metadata };

import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto";
import { LockstepError } from "@lockstep/protocol/wire";
import { publicKey, type Signer, signerOf } from "./signer.ts";
import { isRecord, readStrictJson } from "./strict-json.ts";

/**
 * A key in a file. With a passphrase its secret is encrypted (AES-256-GCM under a key of scrypt), and everything that the
 * file says beside it is bound to it, so that nobody can pass a key off as another one. Without, the file itself is the
 * secret: only the hub keeps such files, in its data directory and readable for its user alone.
 */
export type KeyRole = "root" | "targets" | "snapshot" | "timestamp";
export const KEY_ROLES: readonly KeyRole[] = ["root", "targets", "snapshot", "timestamp"];
/** What a key is for: a role of TUF's, or orders for single installations. */
export type KeyPurpose = KeyRole | "orders";
export const KEY_PURPOSES: readonly KeyPurpose[] = [...KEY_ROLES, "orders"];

/** 128 MiB and half a second for each guess. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1 };
const SCRYPT_MEMORY = 256 * 1024 * 1024;
export const KEY_FILE_FORMAT = "lockstep-key/1";

export interface KeyFile {
  readonly role: KeyPurpose;
  readonly keyId: string;
  readonly public: string;
  readonly createdAt: string;
  readonly encrypted: boolean;
  readonly document: Readonly<Record<string, unknown>>;
}

/** The text of a key file. `passphrase` null: not encrypted. */
export async function formatKeyFile(
  secret: Uint8Array,
  role: KeyPurpose,
  createdAtMs: number,
  passphrase: string | null,
): Promise<string> {
  const { key } = signerOf(secret);
  const head = {
    format: KEY_FILE_FORMAT,
    role,
    keyId: key.id,
    public: key.public,
    createdAt: new Date(createdAtMs).toISOString(),
  };
  if (passphrase === null)
    return `${JSON.stringify({ ...head, encryption: null, secret: base64(secret) }, null, 2)}\n`;
  const salt = randomBytes(16);
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", await derive(passphrase, salt, SCRYPT), nonce);
  cipher.setAAD(Buffer.from(JSON.stringify(head)));
  const sealed = Buffer.concat([cipher.update(secret), cipher.final()]);
  const encryption = {
    kdf: "scrypt",
    ...SCRYPT,
    salt: base64(salt),
    cipher: "aes-256-gcm",
    nonce: base64(nonce),
    tag: base64(cipher.getAuthTag()),
  };
  return `${JSON.stringify({ ...head, encryption, secret: base64(sealed) }, null, 2)}\n`;
}

/** Reads what a key file says without its secret. Throws KEY_FILE_INVALID. */
export function parseKeyFile(text: string, path: string): KeyFile {
  const read = readStrictJson(Buffer.from(text));
  const value = "value" in read ? read.value : null;
  if (!isRecord(value) || value.format !== KEY_FILE_FORMAT) throw invalid(path, "no key file of ours");
  const { role, keyId, public: hex, createdAt, encryption } = value;
  const known = KEY_PURPOSES.find((name) => name === role);
  if (
    known === undefined ||
    typeof keyId !== "string" ||
    typeof hex !== "string" ||
    typeof createdAt !== "string"
  )
    throw invalid(path, "a member is missing");
  if (!/^[0-9a-f]{64}$/.test(hex) || publicKey(hex).id !== keyId)
    throw invalid(path, "another public key than its id says");
  return { role: known, keyId, public: hex, createdAt, encrypted: encryption !== null, document: value };
}

/** Opens a key file. Throws KEY_FILE_INVALID, KEY_PASSPHRASE_WRONG. */
export async function openKeyFile(text: string, path: string, passphrase: string | null): Promise<Signer> {
  const file = parseKeyFile(text, path);
  const secret = await readSecret(file, path, passphrase);
  let signer: Signer;
  try {
    signer = signerOf(secret);
  } catch (cause) {
    throw invalid(path, "a secret that is no ed25519 key", cause);
  }
  if (signer.key.id !== file.keyId) throw invalid(path, "a secret of another key than it says");
  return signer;
}

async function readSecret(file: KeyFile, path: string, passphrase: string | null): Promise<Uint8Array> {
  const { encryption, secret, ...head } = file.document;
  if (typeof secret !== "string") throw invalid(path, "no secret");
  if (!file.encrypted) return Buffer.from(secret, "base64");
  if (!isRecord(encryption)) throw invalid(path, "no description of its encryption");
  const { kdf, N, r, p, salt, cipher, nonce, tag } = encryption;
  const cost = [N, r, p].every((each) => typeof each === "number" && each >= 1 && each <= 2 ** 20);
  if (kdf !== "scrypt" || cipher !== "aes-256-gcm" || !cost)
    throw invalid(path, "an encryption that is not known here");
  if (typeof salt !== "string" || typeof nonce !== "string" || typeof tag !== "string")
    throw invalid(path, "an encryption that is not whole");
  if (passphrase === null)
    throw new LockstepError("KEY_PASSPHRASE_WRONG", `the key in ${path} needs its passphrase`, {
      hint: "Give it by --passphrase-file, by LOCKSTEP_KEY_PASSPHRASE, or at the prompt.",
    });
  try {
    const key = await derive(passphrase, Buffer.from(salt, "base64"), {
      N: Number(N),
      r: Number(r),
      p: Number(p),
    });
    const decipher = createDecipheriv("aes-256-gcm", key, Buffer.from(nonce, "base64"), {
      authTagLength: 16,
    });
    decipher.setAAD(Buffer.from(JSON.stringify(head)));
    decipher.setAuthTag(Buffer.from(tag, "base64"));
    return Buffer.concat([decipher.update(Buffer.from(secret, "base64")), decipher.final()]);
  } catch (cause) {
    throw new LockstepError("KEY_PASSPHRASE_WRONG", `the key in ${path} cannot be opened`, {
      expected: "its passphrase, and the file as it was written",
      found: "another passphrase, or an altered file",
      hint: "Nothing was signed. Try the passphrase again, or take the file from where it is kept safe.",
      cause,
    });
  }
}

function derive(passphrase: string, salt: Uint8Array, cost: typeof SCRYPT): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize("NFKC"), salt, 32, { ...cost, maxmem: SCRYPT_MEMORY }, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

function invalid(path: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("KEY_FILE_INVALID", `${path} holds no key that can be used`, {
    expected: `a file of the format ${KEY_FILE_FORMAT}`,
    found,
    hint: "Take the file from where it is kept safe.",
    ...(cause === undefined ? {} : { cause }),
  });
}

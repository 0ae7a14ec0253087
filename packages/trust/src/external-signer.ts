import { spawn } from "node:child_process";
import { LockstepError } from "@lockstep/protocol/wire";
import { KEY_ROLES, type KeyRole } from "./key-file.ts";
import { holds } from "./sealed.ts";
import { type PublicKey, publicKey, type Signer } from "./signer.ts";
import { isRecord, readStrictJson } from "./strict-json.ts";

/**
 * A key that is elsewhere: in a smart card, a hardware module or a key service. What signs is a command: it gets the bytes on
 * its standard input and gives the 64 bytes of an ed25519 signature on its standard output. A few lines around a PKCS#11
 * library are such a command (docs/operating/trust.md; pkcs11-tool takes long input apart, and ed25519 wants it whole). The
 * secret never enters this process, and a person may be asked for a PIN or a touch by the command itself, on the terminal.
 *
 * Which command it is stands in a signer file, and a signer file is only read where somebody names it: a directory of key files
 * comes on a stick, and must not be able to start anything. Whatever a command gives is held against the public key of the
 * file before it counts.
 */
export const SIGNER_FILE_FORMAT = "lockstep-signer/1";
/** Somebody may have to find their card. */
const SIGN_MS = 5 * 60_000;
const SIGNATURE_BYTES = 64;
const COMPLAINT_CHARACTERS_MAX = 1000;

export interface SignerFile {
  readonly role: KeyRole;
  readonly key: PublicKey;
  /** The program and its arguments; no shell reads them. */
  readonly command: readonly string[];
}

export function formatSignerFile({ role, key, command }: SignerFile): string {
  return `${JSON.stringify({ format: SIGNER_FILE_FORMAT, role, public: key.public, command }, null, 2)}\n`;
}

/** Throws KEY_FILE_INVALID. */
export function parseSignerFile(text: string, path: string): SignerFile {
  const read = readStrictJson(Buffer.from(text));
  const value = "value" in read ? read.value : null;
  if (!isRecord(value) || value.format !== SIGNER_FILE_FORMAT) throw invalid(path, "another file");
  const { public: hex, command } = value;
  const role = KEY_ROLES.find((each) => each === value.role);
  if (role === undefined) throw invalid(path, "no role of a key");
  if (typeof hex !== "string" || !/^[0-9a-f]{64}$/.test(hex)) throw invalid(path, "no ed25519 public key");
  const words = Array.isArray(command) ? command : [];
  const texts = words.filter((word) => typeof word === "string");
  if (texts.length === 0 || texts.length !== words.length) throw invalid(path, "no command");
  return { role, key: publicKey(hex), command: texts };
}

/** A signer by a command, which may take `signMs` milliseconds. Signing throws SIGNER_FAILED. */
export function externalSigner(
  { key, command }: Pick<SignerFile, "key" | "command">,
  signMs = SIGN_MS,
): Signer {
  return {
    key,
    sign: async (bytes) => {
      const signature = await run(command, bytes, signMs);
      if (holds(key, bytes, Buffer.from(signature).toString("hex"))) return signature;
      throw failed(
        command,
        `a signature by the key ${key.public}`,
        `${signature.length} bytes that are none`,
      );
    },
  };
}

function run(command: readonly string[], bytes: Uint8Array, signMs: number): Promise<Uint8Array> {
  const [program = "", ...args] = command;
  return new Promise((resolve, reject) => {
    // A PIN is asked for at the terminal, which a command opens itself.
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
    const given: Buffer[] = [];
    let length = 0;
    let complaint = "";
    // What the command has started may outlive it and hold its output open: nobody waits for the end of that.
    const giveUp = (expected: string, found: string) => {
      clearTimeout(limit);
      child.kill();
      for (const stream of child.stdio) stream?.destroy();
      child.unref();
      reject(failed(command, expected, `${found}${complaint === "" ? "" : `: ${complaint.trim()}`}`));
    };
    const limit = setTimeout(
      () => giveUp(`a signature within ${signMs / 1000} s`, "none, the command was stopped"),
      signMs,
    );
    child.stdout.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length > SIGNATURE_BYTES) giveUp(`${SIGNATURE_BYTES} bytes on standard output`, "more");
      else given.push(chunk);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      complaint = (complaint + text).slice(-COMPLAINT_CHARACTERS_MAX);
    });
    // One that ends without reading has its status to say why.
    child.stdin.on("error", () => {});
    child.stdin.end(bytes);
    child.once("error", (cause) => {
      clearTimeout(limit);
      reject(failed(command, "a program that can be run", cause.message, cause));
    });
    child.once("close", (status, signal) => {
      clearTimeout(limit);
      if (status !== 0)
        reject(failed(command, "exit status 0", `${signal ?? `status ${status}`}: ${complaint.trim()}`));
      else resolve(Buffer.concat(given));
    });
  });
}

function failed(command: readonly string[], expected: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("SIGNER_FAILED", `the signing command ${command[0] ?? ""} gave no signature`, {
    expected,
    found,
    hint: "Nothing was signed. Try the command by hand: bytes on its standard input, the signature on its standard output.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function invalid(path: string, found: string): LockstepError {
  return new LockstepError("KEY_FILE_INVALID", `${path} names no signer that can be used`, {
    expected: `a file of the format ${SIGNER_FILE_FORMAT}`,
    found,
    hint: "Make one: lockstep keys signer FILE --role ROLE --public-key FILE -- COMMAND...",
  });
}

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import {
  externalSigner,
  formatKeyFile,
  type KeyRole,
  makeSecret,
  openKeyFile,
  type PublicKey,
  parseKeyFile,
  parseSignerFile,
  publicKey,
  type Signer,
  signerOf,
} from "@lockstep/trust";
import type { Command } from "commander";
import { collect } from "../options.ts";
import { askSecret, canAsk } from "../screen/question.ts";

/** Where key files lie and how they are opened. */
export interface KeyArguments {
  /** Directory with key files; absent: only the hub's own keys are used. */
  readonly keys?: string;
  readonly passphraseFile?: string;
  /** Signer files: keys that are in hardware or elsewhere, each used through a command. */
  readonly signer?: readonly string[];
}

/** The options of every command that signs with key files. */
export function addKeyOptions(command: Command): Command {
  return command
    .option("--keys <directory>", "where the key files are or come to be")
    .option(
      "--passphrase-file <file>",
      "their passphrase (else LOCKSTEP_KEY_PASSPHRASE, else it is asked for)",
    )
    .option(
      "--signer <file>",
      "a key in hardware or elsewhere, as lockstep keys signer described it; repeatable",
      collect,
    );
}

/** The passphrase of key files: from a file, the environment or the prompt. Throws KEY_PASSPHRASE_WRONG. */
export async function readPassphrase({ passphraseFile }: KeyArguments, twice: boolean): Promise<string> {
  if (passphraseFile !== undefined) return (await readFile(passphraseFile, "utf8")).replace(/\r?\n$/, "");
  const given = process.env.LOCKSTEP_KEY_PASSPHRASE;
  if (given !== undefined && given !== "") return given;
  if (!canAsk())
    throw new LockstepError(
      "KEY_PASSPHRASE_WRONG",
      "the key files need a passphrase, and nobody can be asked",
      {
        hint: "Give it by --passphrase-file or LOCKSTEP_KEY_PASSPHRASE.",
      },
    );
  const passphrase = await askSecret("Passphrase of the key files: ");
  if (twice && (await askSecret("Once more: ")) !== passphrase)
    throw new LockstepError("KEY_PASSPHRASE_WRONG", "the two passphrases differ", {
      hint: "Nothing was made.",
    });
  return passphrase;
}

/**
 * The keys of a role: those in the directory, and those that a signer file was named for. Throws KEY_FILE_INVALID,
 * KEY_PASSPHRASE_WRONG, KEY_MISSING for no directory.
 */
export async function openKeys(given: KeyArguments, role: KeyRole): Promise<Signer[]> {
  const signers: Signer[] = await externalSigners(given, role);
  if (given.keys === undefined) return signers;
  let passphrase: string | null = null;
  for (const name of await listFiles(given.keys)) {
    const path = join(given.keys, name);
    const text = await readFile(path, "utf8");
    const file = parseKeyFile(text, path);
    if (file.role !== role) continue;
    if (file.encrypted) passphrase ??= await readPassphrase(given, false);
    signers.push(await openKeyFile(text, path, passphrase));
  }
  return signers;
}

/** The public halves of the same keys: no passphrase is asked for. Throws KEY_FILE_INVALID, KEY_MISSING. */
export async function publicKeys(given: KeyArguments, role: KeyRole): Promise<PublicKey[]> {
  const keys = (await externalSigners(given, role)).map(({ key }) => key);
  if (given.keys === undefined) return keys;
  for (const name of await listFiles(given.keys)) {
    const path = join(given.keys, name);
    const file = parseKeyFile(await readFile(path, "utf8"), path);
    if (file.role === role) keys.push(publicKey(file.public));
  }
  return keys;
}

/** Makes keys of a role in a directory, encrypted. Existing files stay. */
export async function makeKeyFiles(
  directory: string,
  role: KeyRole,
  count: number,
  passphrase: string,
): Promise<Signer[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const signers: Signer[] = [];
  for (let made = 0; made < count; made++) {
    const secret = makeSecret();
    const signer = signerOf(secret);
    const text = await formatKeyFile(secret, role, Date.now(), passphrase);
    const path = join(directory, `${role}-${signer.key.id.slice(0, 12)}.json`);
    await writeFile(path, text, { mode: 0o600, flag: "wx", flush: true });
    signers.push(signer);
  }
  return signers;
}

/** Keys of a role that are elsewhere. Only files that somebody named are read: what they say is started. */
export async function externalSigners({ signer = [] }: KeyArguments, role: KeyRole): Promise<Signer[]> {
  const files = await Promise.all(signer.map(async (path) => parseSignerFile(await readSigner(path), path)));
  // Not passed to map itself: it would hand the index over as the time that a command may take.
  return files.filter((file) => file.role === role).map((file) => externalSigner(file));
}

async function readSigner(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new LockstepError("KEY_MISSING", `the signer file ${path} cannot be read`, {
      found: systemErrorCode(cause) ?? "no file",
      hint: "Make one: lockstep keys signer FILE --role ROLE --public-key FILE -- COMMAND...",
      cause,
    });
  }
}

async function listFiles(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).filter((name) => name.endsWith(".json")).sort();
  } catch (cause) {
    throw new LockstepError("KEY_MISSING", `there are no key files in ${directory}`, {
      found: systemErrorCode(cause) ?? "no directory",
      hint: "Name the directory with the key files: --keys DIR.",
      cause,
    });
  }
}

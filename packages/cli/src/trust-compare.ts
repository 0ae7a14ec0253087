import { readFile, stat } from "node:fs/promises";
import type { HubClient } from "@lockstep/client";
import { LockstepError } from "@lockstep/protocol/wire";
import { demandContinuation, type LogHead, type ReleaseEntry } from "@lockstep/trust";
import { usage } from "./options.ts";
import { counted } from "./screen/format.ts";

/**
 * Whether several installations were shown one history of releases (A23).
 *
 * A hub that shows one site other releases than the rest gives each of them a log that holds by itself; only who lays their heads
 * side by side sees it, and by a way that the hub does not control: a file, a message, a line read out on the telephone. Of
 * two heads the shorter has to be a beginning of the longer one; the entries between them prove it, from whoever they come.
 */
export interface NamedHead extends LogHead {
  readonly name: string;
  readonly epoch: number;
}

/** Where entries come from: they prove themselves. Null: from nowhere. */
export type EntrySource =
  | ((epoch: number, after: number, to: number) => Promise<readonly ReleaseEntry[]>)
  | null;

const HEAD = /^(\d{1,9}):(\d{1,15}):([0-9a-f]{64})$/;

/** Reads a head: `EPOCH:SIZE:HEAD`, an installation, or a file with what `trust show --json` says. Throws USAGE. */
export async function readHead(
  argument: string,
  ofInstallation: (directory: string) => Promise<(LogHead & { readonly epoch: number }) | null>,
): Promise<NamedHead> {
  const match = HEAD.exec(argument.trim());
  if (match !== null) return named(argument.slice(0, 24), match);
  const found = await stat(argument).catch(() => null);
  if (found === null)
    throw usage("this is no head of a log of releases", "EPOCH:SIZE:HEAD, a directory, or a file", argument);
  if (found.isDirectory()) {
    const history = await ofInstallation(argument);
    if (history !== null) return { name: argument, ...pick(history) };
    throw usage(`${argument} has seen no release yet`, "an installation that was updated", "none");
  }
  const text = (await readFile(argument, "utf8")).trim();
  const line = HEAD.exec(text);
  if (line !== null) return named(argument, line);
  try {
    const value = JSON.parse(text) as { history?: NamedHead | null };
    const history = (value.history ?? value) as NamedHead;
    const written = HEAD.exec(`${history.epoch}:${history.size}:${history.head}`);
    if (written !== null) return named(argument, written);
  } catch {
    // Told below.
  }
  throw usage(
    `${argument} holds no head`,
    "what lockstep trust show --json says, or EPOCH:SIZE:HEAD",
    "neither",
  );
}

function named(name: string, [, epoch, size, head = ""]: RegExpExecArray): NamedHead {
  return { name, epoch: Number(epoch), size: Number(size), head };
}

function pick({ epoch, size, head }: LogHead & { readonly epoch: number }) {
  return { epoch, size, head };
}

export interface Comparison {
  /** From the shortest to the longest. */
  readonly heads: readonly NamedHead[];
  /** The entries that lead from the first to the last. */
  readonly proof: readonly ReleaseEntry[];
}

/**
 * Demands that each head continues the shorter ones. Throws TRUST_HISTORY_DIFFERS: they do not, or nobody could prove it; USAGE
 * where heads of different length came without a source of entries, or are of different epochs.
 */
export async function compareHeads(given: readonly NamedHead[], source: EntrySource): Promise<Comparison> {
  const heads = [...given].sort((a, b) => a.size - b.size);
  const proof: ReleaseEntry[] = [];
  for (const [index, longer] of heads.entries()) {
    const shorter = heads[index - 1];
    if (shorter === undefined) continue;
    if (shorter.epoch !== longer.epoch)
      throw usage(
        "heads of different epochs say nothing about each other: the root keys began history anew between them",
        `epoch ${shorter.epoch} (${shorter.name})`,
        `epoch ${longer.epoch} (${longer.name})`,
        "Update the installation of the older epoch first.",
      );
    const entries = longer.size === shorter.size ? [] : await between(source, shorter, longer);
    try {
      demandContinuation(shorter, longer, entries);
    } catch (cause) {
      throw new LockstepError(
        "TRUST_HISTORY_DIFFERS",
        `${shorter.name} and ${longer.name} were shown different releases, or nobody proves the contrary`,
        {
          expected: `${counted(longer.size, "release")} with head ${longer.head.slice(0, 16)} to continue ${counted(shorter.size, "release")} with head ${shorter.head.slice(0, 16)}`,
          found: cause instanceof LockstepError ? String(cause.found) : "another history",
          hint: "Stop updates, and ask whoever has the release keys which of the two releases is theirs. Entries may also be wrong: try another --hub or --log.",
          cause,
        },
      );
    }
    proof.push(...entries);
  }
  return { heads, proof };
}

async function between(
  source: EntrySource,
  shorter: NamedHead,
  longer: NamedHead,
): Promise<readonly ReleaseEntry[]> {
  if (source === null)
    throw usage(
      "the heads are of different length, so what lies between them is needed",
      "--hub URL or --log FILE",
      "neither",
      "The entries prove themselves, whoever gives them.",
    );
  return await source(longer.epoch, shorter.size, longer.size);
}

/** Entries from a hub, as many pages as it takes. */
export function entriesOfHub(hub: HubClient): NonNullable<EntrySource> {
  return async (epoch, after, to) => {
    const entries: ReleaseEntry[] = [];
    while (after + entries.length < to) {
      const page = await hub.signedDocument(`log/${epoch}?after=${after + entries.length}&to=${to}`);
      const more = readEntries(Buffer.from(page).toString("utf8"));
      if (more.length === 0) break;
      entries.push(...more);
    }
    return entries;
  };
}

/** Entries from a file: what `GET /v1/trust/log/EPOCH` or `trust compare --json` said. */
export function entriesOfFile(text: string): NonNullable<EntrySource> {
  const all = readEntries(text);
  return async (_epoch, after, to) => all.filter(({ index }) => index > after && index <= to);
}

function readEntries(text: string): ReleaseEntry[] {
  try {
    const value = JSON.parse(text) as { entries?: unknown; proof?: unknown };
    const entries = Array.isArray(value.entries) ? value.entries : value.proof;
    return Array.isArray(entries) ? entries.filter(isEntry) : [];
  } catch {
    return [];
  }
}

function isEntry(value: unknown): value is ReleaseEntry {
  if (typeof value !== "object" || value === null) return false;
  const { index, revision, digest } = value as Partial<Record<keyof ReleaseEntry, unknown>>;
  return Number.isSafeInteger(index) && Number.isSafeInteger(revision) && typeof digest === "string";
}

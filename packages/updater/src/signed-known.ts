import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isSha256 } from "@lockstep/core";
import type { KnownSigned } from "@lockstep/protocol/wire";
import type { InstallationPaths } from "./layout.ts";

/**
 * What an installation knows of signatures without verifying any: the number of the root that it trusts, and the digest under
 * which the revision that it has was signed. Two small files, read with each check; the library that verifies is not loaded.
 */
export function readKnownSigned(paths: InstallationPaths, installed: number | null): KnownSigned {
  const read = (name: string) => readOrNull(join(paths.trust, name));
  const { signed } = parse(read("root.json")) as { signed?: { version?: unknown } };
  const root = signed?.version;
  return {
    root: Number.isSafeInteger(root) ? (root as number) : null,
    revision: installed,
    digest: digestOfInstalled(read, installed),
  };
}

/** The record that says under which digest a revision was installed. */
export function formatInstalled(revision: number, digest: string): Uint8Array {
  return Buffer.from(`${JSON.stringify({ revision, digest })}\n`);
}

/**
 * The digest under which the installed revision was signed, out of the records of a trust store; null where nobody wrote it down.
 * A run that died before it could do so left what it went to (`goal`).
 */
export function digestOfInstalled(
  read: (name: "installed" | "goal") => Uint8Array | null,
  installed: number | null,
): string | null {
  if (installed === null) return null;
  const written = parse(read("installed")) as Said;
  if (written.revision === installed && isSha256(written.digest)) return written.digest;
  const { signed } = parse(read("goal")) as { signed?: { lockstep?: Said } };
  const goal = signed?.lockstep;
  return goal?.revision === installed && isSha256(goal.digest) ? goal.digest : null;
}

interface Said {
  readonly revision?: unknown;
  readonly digest?: unknown;
}

function readOrNull(path: string): Uint8Array | null {
  try {
    return readFileSync(path);
  } catch {
    // Another user's: then nobody here can tell, and nothing is said.
    return null;
  }
}

function parse(bytes: Uint8Array | null): object {
  try {
    const value: unknown = bytes === null ? null : JSON.parse(Buffer.from(bytes).toString("utf8"));
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

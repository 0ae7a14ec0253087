import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { HubClient } from "@lockstep/client";
import {
  counted,
  formatTarget,
  isSha256,
  type Manifest,
  type ManifestRef,
  type Sha256,
} from "@lockstep/core";
import {
  applyDelta,
  formatManifest,
  isLockstepError,
  LockstepError,
  parseDelta,
  parseManifest,
} from "@lockstep/protocol/wire";
import { guarded } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_MODE } from "./layout.ts";

/**
 * The manifests of the installed roles, kept by digest.
 *
 * A manifest is fetched once. When it changes, its difference to the one that is here travels instead: with 43,000
 * files and four changes the list would be the largest part of the update. Whatever way it came, its digest decides; a
 * difference that does not lead to the promised digest is dropped and the whole text is fetched. What is read from the
 * disk is verified as well: the cache can be damaged or deleted at any time.
 */
export interface ObtainedManifest {
  readonly ref: ManifestRef;
  readonly manifest: Manifest;
  readonly text: string;
  /** How it came. */
  readonly way: "cached" | "delta" | "whole";
  /** The one that it takes the place of, where that is still here. */
  readonly former: { readonly sha256: Sha256; readonly manifest: Manifest } | null;
}

/** More than that in one installation takes more memory than anybody should give an updater. */
const FILES_MAX = 600_000;
const BYTES_MAX = 256 * 1024 * 1024;

/**
 * Returns the manifests in the order of the references. `former` are the digests that the installation had, by target.
 * Throws MANIFEST_INVALID, MANIFEST_TOO_LARGE and what a hub call throws.
 */
export async function obtainManifests(
  client: HubClient,
  paths: InstallationPaths,
  refs: readonly ManifestRef[],
  former: Readonly<Record<string, Sha256>>,
  signal: AbortSignal | undefined,
): Promise<ObtainedManifest[]> {
  refuseTooMuch(refs);
  const obtained: ObtainedManifest[] = [];
  for (const ref of refs) {
    const found = await obtain(client, paths, ref, former[formatTarget(ref.target)], signal);
    if (formatTarget(found.manifest.target) !== formatTarget(ref.target))
      throw new LockstepError("MANIFEST_INVALID", "a manifest speaks of another deploy target", {
        expected: formatTarget(ref.target),
        found: formatTarget(found.manifest.target),
        hint: "Nothing was changed. Look at the hub's log.",
      });
    obtained.push(found);
  }
  return obtained;
}

async function obtain(
  client: HubClient,
  paths: InstallationPaths,
  ref: ManifestRef,
  former: Sha256 | undefined,
  signal: AbortSignal | undefined,
): Promise<ObtainedManifest> {
  const cached = readCached(paths, ref.sha256);
  if (cached !== null)
    return { ref, manifest: parseManifest(cached), text: cached, way: "cached", former: null };
  const base = former === undefined || former === ref.sha256 ? null : readCached(paths, former);
  if (base !== null && former !== undefined) {
    const delta = await fetchDelta(client, former, ref, signal);
    const built = delta === null ? null : build(base, delta, ref, former);
    if (built !== null) return built;
  }
  const text = await client.manifest(ref, { signal });
  refuseMoreThanPromised(text, ref);
  return { ref, manifest: parseManifest(text), text, way: "whole", former: null };
}

function refuseTooMuch(refs: readonly ManifestRef[]): void {
  const files = refs.reduce((sum, ref) => sum + ref.files, 0);
  const bytes = refs.reduce((sum, ref) => sum + ref.size, 0);
  if (files <= FILES_MAX && bytes <= BYTES_MAX) return;
  throw new LockstepError("MANIFEST_TOO_LARGE", "the chosen machine roles and packages have too many files", {
    expected: `at most ${FILES_MAX} files, in lists of at most ${BYTES_MAX} bytes`,
    found: `${counted(files, "file")}, in lists of ${bytes} bytes`,
    hint: "Nothing was changed. Divide the product into roles that need less each, or put many small files into one archive.",
  });
}

/** Before it is taken apart: a list in memory costs many times its text. */
function refuseMoreThanPromised(text: string, ref: ManifestRef): void {
  let lines = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) lines++;
  if (lines - 1 <= ref.files) return;
  throw new LockstepError(
    "MANIFEST_INVALID",
    `the manifest of ${formatTarget(ref.target)} lists too many files`,
    {
      expected: `${counted(ref.files, "file")}, as the software revision says`,
      found: counted(lines - 1, "file"),
      hint: "Nothing was changed. Look at the hub's log.",
    },
  );
}

/** So much of a difference is no list: its header. */
const DELTA_FREE_BYTES = 1024;

/**
 * The difference as text; null when the hub has none, or one that is longer than the list itself: nobody signed it, so
 * it gets no more room than what was signed for.
 */
async function fetchDelta(
  client: HubClient,
  former: Sha256,
  { sha256, size }: ManifestRef,
  signal: AbortSignal | undefined,
): Promise<string | null> {
  try {
    return await client.manifestDelta(former, sha256, { signal, bytesMax: size + DELTA_FREE_BYTES });
  } catch (error) {
    if (isLockstepError(error, "HUB_ANSWER_INVALID")) return null;
    throw error;
  }
}

/** The new manifest from the old one and a difference; null when that does not give the promised one. */
function build(base: string, delta: string, ref: ManifestRef, sha256: Sha256): ObtainedManifest | null {
  try {
    const former = { sha256, manifest: parseManifest(base) };
    const { target, entries } = former.manifest;
    const manifest = { target, entries: applyDelta(entries, parseDelta(delta)) };
    const text = formatManifest(manifest);
    return digestOf(text) === ref.sha256 ? { ref, manifest, text, way: "delta", former } : null;
  } catch (error) {
    if (isLockstepError(error, "MANIFEST_INVALID")) return null;
    throw error;
  }
}

function digestOf(text: string): Sha256 {
  return createHash("sha256").update(text).digest("hex");
}

/** Reads a manifest of the cache, if it is there and whole. */
export function readCached(paths: InstallationPaths, sha256: Sha256): string | null {
  if (!isSha256(sha256)) return null;
  let text: string;
  try {
    text = readFileSync(join(paths.manifests, sha256), "utf8");
  } catch {
    return null;
  }
  return digestOf(text) === sha256 ? text : null;
}

/** Keeps exactly these manifests. A cache that cannot be written is no reason to stop. */
export function keepManifests(paths: InstallationPaths, manifests: readonly ObtainedManifest[]): void {
  const wanted = new Map(manifests.map((each) => [each.ref.sha256, each]));
  guarded(paths.manifests, "writing", () => {
    mkdirSync(paths.manifests, { recursive: true, mode: PRIVATE_MODE });
    const present = new Set(readdirSync(paths.manifests));
    for (const [sha256, { text }] of wanted) {
      if (present.has(sha256)) continue;
      const temporary = join(paths.manifests, `${sha256}.new`);
      writeFileSync(temporary, text, { mode: 0o600 });
      renameSync(temporary, join(paths.manifests, sha256));
    }
    for (const name of present) if (!wanted.has(name)) rmSync(join(paths.manifests, name), { force: true });
  });
}

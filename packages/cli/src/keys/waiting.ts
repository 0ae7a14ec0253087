import type { HubClient } from "@lockstep/client";
import {
  parseTarget,
  type ReviewCount,
  type ReviewedFile,
  reviewRevision,
  type Sha256,
  summarizeReview,
  type TargetEntries,
} from "@lockstep/core";
import { LockstepError, parseManifest, type RevisionDocument } from "@lockstep/protocol/wire";
import { examine, readSignedRevision, readTargets } from "@lockstep/trust";
import { type FormerArguments, formerRevision } from "./former-revision.ts";
import { type Removed, readOrigin } from "./waiting-origin.ts";

/** What a signature would bring about, computed from what is to be signed and not from what a hub says about it. */
export interface Waiting {
  /** The document that waits, as it came. */
  readonly text: string;
  readonly shown: ShownRevision;
}

/** The document of `revision sign --show --json`; see docs/reference/commands.md. */
export interface ShownRevision {
  readonly revision: number;
  readonly digest: string;
  /** Of the signed targets. */
  readonly version: number;
  readonly former: {
    readonly revision: number;
    readonly digest: string;
    readonly version: number;
    readonly vouchedBy: string;
  } | null;
  /** What is not as it should be with what waits, or with what it was to be compared with. */
  readonly problems: readonly string[];
  /** The loads that led to it, as the hub says. */
  readonly releases: readonly string[];
  readonly updateArchive: {
    readonly from: RevisionDocument["updateArchive"];
    readonly to: RevisionDocument["updateArchive"];
  };
  /** Roles and packages that are new, or no longer there. */
  readonly targets: { readonly added: readonly string[]; readonly removed: readonly string[] };
  /** What can be chosen and what comes along, where it differs. */
  readonly choices: readonly Choice[];
  readonly summary: readonly ReviewCount[];
  readonly files: readonly ShownFile[];
}

interface Choice {
  readonly what: string;
  readonly from: readonly string[];
  readonly to: readonly string[];
}

export interface ShownFile extends ReviewedFile {
  /** As the hub says; null: it says nothing. */
  readonly module: string | null;
}

/**
 * Reads what waits for a signature, and how it differs from the revision right before it. Throws NOT_FOUND when nothing
 * waits, MANIFEST_INVALID, TRUST_REFUSED, and what `formerRevision` throws.
 */
export async function readWaiting(hub: HubClient, given: FormerArguments): Promise<Waiting> {
  const text = await hub.awaitingDocument();
  examine(Buffer.from(text), "targets", "the document that waits");
  const { signed: targets } = readTargets(Buffer.from(text));
  const next = { version: targets.version, signed: readSignedRevision(targets) };
  const { former, problem } = await formerRevision(hub, given, next);
  const to = next.signed.document;
  const from = former?.signed.document ?? null;
  const problems = problem === null ? [] : [`${problem}; so every file is shown as new`];
  if (from !== null && to.number <= from.number)
    problems.push(`its number ${to.number} is not above ${from.number}, that of the former one`);
  const [before, after] = await readManifests(hub, from, to);
  const reviewed = reviewRevision(before, after);
  const origin = await readOrigin(hub);
  const moduleOf = reviewed.length === 0 ? () => null : await readModules(hub, origin.removed);
  const files = reviewed.map((file) => ({ ...file, module: moduleOf(file) }));
  const names = (document: RevisionDocument | null) =>
    (document?.manifests ?? []).map(({ target }) => target);
  const without = (all: readonly string[], these: readonly string[]) =>
    all.filter((name) => !these.includes(name));
  const shown: ShownRevision = {
    revision: to.number,
    digest: to.digest,
    version: next.version,
    former:
      former === null || from === null
        ? null
        : {
            revision: from.number,
            digest: from.digest,
            version: former.version,
            vouchedBy: former.vouchedBy,
          },
    problems,
    releases: origin.releases,
    updateArchive: { from: from?.updateArchive ?? null, to: to.updateArchive },
    targets: { added: without(names(to), names(from)), removed: without(names(from), names(to)) },
    choices: differingChoices(from, to),
    summary: summarizeReview(files, ({ module }) => module),
    files,
  };
  return { text, shown };
}

/** The entries of all manifests of both; those that are the same are read once. */
async function readManifests(
  hub: HubClient,
  from: RevisionDocument | null,
  to: RevisionDocument,
): Promise<[TargetEntries[], TargetEntries[]]> {
  const read = new Map<string, TargetEntries>();
  const all = async (document: RevisionDocument | null) => {
    const lists: TargetEntries[] = [];
    for (const manifest of document?.manifests ?? []) {
      const key = `${manifest.target} ${manifest.sha256}`;
      const known = read.get(key) ?? { target: manifest.target, entries: await entriesOf(hub, manifest) };
      read.set(key, known);
      lists.push(known);
    }
    return lists;
  };
  return [await all(from), await all(to)];
}

async function entriesOf(hub: HubClient, { target: name, ...rest }: RevisionDocument["manifests"][number]) {
  const target = parseTarget(name);
  if (target === null)
    throw new LockstepError("MANIFEST_INVALID", "a manifest of what waits is for no role and no package", {
      expected: "role:NAME or package:NAME",
      found: name.slice(0, 200),
      hint: "Nothing was signed. Look at the hub: it would not have written this.",
    });
  return parseManifest(await hub.manifest({ target, ...rest })).entries;
}

function differingChoices(from: RevisionDocument | null, to: RevisionDocument): Choice[] {
  const choices: Choice[] = [];
  const compare = (what: string, before: readonly string[], after: readonly string[]) => {
    if ([...before].sort().join("\n") !== [...after].sort().join("\n"))
      choices.push({ what, from: before, to: after });
  };
  compare("roles that can be chosen", from?.selectableRoles ?? [], to.selectableRoles);
  compare("packages that can be chosen", from?.selectablePackages ?? [], to.selectablePackages);
  const closures = {
    from: new Map(Object.entries(from?.packageClosure ?? {})),
    to: new Map(Object.entries(to.packageClosure)),
  };
  for (const name of new Set([...closures.from.keys(), ...closures.to.keys()]))
    compare(`what package ${name} brings along`, closures.from.get(name) ?? [], closures.to.get(name) ?? []);
  return choices;
}

/**
 * To which module a file belongs, as the hub says: no manifest names modules. A file of a package may lie deeper in an
 * installation than it was loaded; then its content has to be the same.
 */
async function readModules(
  hub: HubClient,
  removed: readonly Removed[],
): Promise<(file: ReviewedFile) => string | null> {
  const known = new Map<string, { readonly sha256: Sha256 | null; readonly module: string }>();
  for (const { path, sha256, module } of removed) known.set(path, { sha256, module });
  for await (const { path, sha256, module } of hub.allFiles()) known.set(path, { sha256, module });
  return ({ path, from, to }) => {
    const exact = known.get(path);
    if (exact !== undefined) return exact.module;
    const sha256 = (to ?? from)?.sha256;
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      const found = known.get(path.slice(at + 1));
      if (found !== undefined && found.sha256 === sha256) return found.module;
    }
    return null;
  };
}

import { formatTarget, isSha256, parseTarget } from "@lockstep/core";
import { LockstepError, type RevisionDocument } from "@lockstep/protocol/wire";
import { TargetFile, type Targets } from "@tufjs/models";
import { refused } from "./failure.ts";
import type { LogHead } from "./release-log.ts";

/**
 * What the release keys say: one software revision, as the targets of TUF.
 *
 * Each manifest is a target, and so is Update.zip; what else an installation decides by (number, packages that come along,
 * roles that can be chosen, head of the release log) stands in a member of ours beside them, under the same signature.
 * So the whole description of a revision is read from signed metadata, and nothing of it from an answer of the hub.
 */
export const UPDATE_ARCHIVE_TARGET = "Update.zip";
const MANIFESTS = "manifests/";
const MEMBER = "lockstep";
const FORMAT = 1;

export interface SignedRevision {
  readonly document: RevisionDocument;
  readonly log: LogHead;
}

/** Target files and the member beside them. */
export function describeRevision({ document, log }: SignedRevision): {
  readonly targets: Record<string, TargetFile>;
  readonly member: Record<string, unknown>;
} {
  const targets: Record<string, TargetFile> = {};
  for (const { target, sha256, size, files, bytes } of document.manifests) {
    const path = manifestTargetPath(target);
    const unrecognizedFields = { custom: { files, bytes } };
    targets[path] = new TargetFile({ path, length: size, hashes: { sha256 }, unrecognizedFields });
  }
  const archive = document.updateArchive;
  if (archive !== null)
    targets[UPDATE_ARCHIVE_TARGET] = new TargetFile({
      path: UPDATE_ARCHIVE_TARGET,
      length: archive.size,
      hashes: { sha256: archive.sha256 },
    });
  const { number, digest, createdAt, packageClosure, selectableRoles, selectablePackages } = document;
  const member = {
    format: FORMAT,
    revision: number,
    digest,
    createdAt,
    packageClosure,
    selectableRoles,
    selectablePackages,
    log: { size: log.size, head: log.head },
  };
  return { targets, member: { [MEMBER]: member } };
}

/** Reads a revision out of verified targets. Throws TRUST_REFUSED when they describe none that we understand. */
export function readSignedRevision(targets: Targets): SignedRevision {
  const member: unknown = targets.unrecognizedFields[MEMBER];
  if (!isMember(member)) throw refused("targets.json", "it describes no software revision");
  const manifests: RevisionDocument["manifests"] = [];
  let updateArchive: RevisionDocument["updateArchive"] = null;
  for (const [path, file] of Object.entries(targets.targets)) {
    const { sha256 } = file.hashes;
    if (sha256 === undefined || !isSha256(sha256)) throw refused("targets.json", `${path} has no SHA-256`);
    if (path === UPDATE_ARCHIVE_TARGET) updateArchive = { sha256, size: file.length };
    else
      manifests.push({ target: readTargetPath(path), sha256, size: file.length, ...readCustom(file, path) });
  }
  const { revision, digest, createdAt, packageClosure, selectableRoles, selectablePackages, log } = member;
  return {
    document: {
      number: revision,
      digest,
      createdAt,
      manifests,
      updateArchive,
      packageClosure,
      selectableRoles,
      selectablePackages,
    },
    log,
  };
}

/** `manifests/role/Server/JobServer` for `role:Server/JobServer`. */
export function manifestTargetPath(target: string): string {
  return `${MANIFESTS}${target.replace(":", "/")}`;
}

function readTargetPath(path: string): string {
  const text = path.startsWith(MANIFESTS) ? path.slice(MANIFESTS.length).replace("/", ":") : "";
  const target = parseTarget(text);
  if (target === null || formatTarget(target) !== text)
    throw refused("targets.json", `${path.slice(0, 80)} is no manifest`);
  return text;
}

function readCustom(file: TargetFile, path: string): { files: number; bytes: number } {
  const custom: unknown = file.unrecognizedFields.custom;
  if (isObject(custom) && isCount(custom.files) && isCount(custom.bytes))
    return { files: custom.files, bytes: custom.bytes };
  throw refused("targets.json", `${path.slice(0, 80)} does not say how many files it lists`);
}

type Member = Omit<RevisionDocument, "number" | "manifests" | "updateArchive"> & {
  readonly revision: number;
  readonly log: LogHead;
};

function isMember(value: unknown): value is Member {
  if (!isObject(value)) return false;
  if (typeof value.format === "number" && value.format > FORMAT)
    throw new LockstepError(
      "TRUST_REFUSED",
      "the signed revision is of a newer format than this updater reads",
      {
        expected: FORMAT,
        found: value.format,
        hint: "Update the program that runs the updater first.",
      },
    );
  const { log } = value;
  return (
    value.format === FORMAT &&
    isCount(value.revision) &&
    isSha256(value.digest) &&
    isCount(value.createdAt) &&
    isObject(value.packageClosure) &&
    Object.values(value.packageClosure).every(isTexts) &&
    isTexts(value.selectableRoles) &&
    isTexts(value.selectablePackages) &&
    isObject(log) &&
    isCount(log.size) &&
    isSha256(log.head)
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { type HubClient, openDocument } from "@lockstep/client";
import { counted, parseTarget, type Sha256 } from "@lockstep/core";
import { realDisk, systemClock } from "@lockstep/platform";
import {
  CONTENT_HEADER_BYTES,
  ContentStreamReader,
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  isLockstepError,
  LockstepError,
  parseManifest,
  type RevisionDocument,
  stepTag,
} from "@lockstep/protocol/wire";
import { epochOf, MetadataCopy, MirrorSource, TrustClient } from "@lockstep/trust";
import { BUNDLE_FORMAT, BUNDLE_LIMITS, type BundleHead, type BundleStep } from "./bundle-format.ts";

/**
 * Writes the current software revision of a hub into one file, for sites that no network reaches.
 *
 * What is signed is verified here already, so that a wrong hub is noticed before the journey. The file grows as `FILE.part`
 * and gets its name when it is whole and durable; an export that broke off goes on after the last whole content.
 */
export interface ExportOptions {
  readonly client: HubClient;
  readonly file: string;
  /** The root that the bundle must hold under; null: the first that the hub shows. */
  readonly root: Uint8Array | null;
  /** Installations are at one of these: contents that all of them have stay out, and steps from them come along. */
  readonly from: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

export interface Exported {
  readonly file: string;
  readonly revision: number;
  readonly contents: number;
  readonly steps: number;
  readonly bytes: number;
  /** Contents that were in the file already. */
  readonly resumed: number;
  /** When the signatures expire: the bundle is taken until then. Milliseconds since 1970. */
  readonly expiresAt: number;
}

const ASK_AT_ONCE = 512;
const STEP_WAIT_SECONDS = 30;
const STEP_ATTEMPTS_MAX = 20;
const STEP_BYTES_MAX = 2 ** 30;
const ROOTS_MAX = 256;

/** Throws what a hub call and a verification throw, and what the file system throws. */
export async function exportBundle(options: ExportOptions): Promise<Exported> {
  const { client, signal, from } = options;
  const { documents, trust } = await collectSigned(options);
  const { document, log } = trust.currentRevision();
  const { number } = document;
  const semaphore = await client.currentSemaphore({ signal });
  if (semaphore.revision !== number)
    throw new LockstepError(
      "TRUST_UNAVAILABLE",
      `the hub announces ${semaphore.revision}, signed is ${number}`,
      {
        expected: semaphore.revision,
        found: number,
        hint: "Try again: a revision has just come, or waits for its signature.",
      },
    );
  const known = await commonContents(client, from, signal);
  const wanted: Sha256[] = [];
  const seen = new Set<Sha256>();
  const want = (sha256: Sha256) => {
    if (!seen.has(sha256)) wanted.push(sha256);
    seen.add(sha256);
  };
  for (const manifest of await readManifests(client, document, signal)) {
    want(manifest.sha256);
    for (const { sha256 } of manifest.entries) if (!known.has(sha256)) want(sha256);
  }
  if (document.updateArchive !== null) want(document.updateArchive.sha256);
  const steps = await collectSteps(client, document, from, signal);
  const epoch = epochOf(trust.root);
  const head: BundleHead = {
    format: BUNDLE_FORMAT,
    revision: number,
    semaphore: JSON.stringify(semaphore),
    documents: Object.fromEntries(
      [...documents].map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")]),
    ),
    log: { epoch, entries: await collectLog(client, epoch, log.size, signal) },
    from,
    steps: steps.map(({ step }) => step),
    contents: [...wanted, ...steps.map(({ step }) => step.sha256)],
  };
  const written = await writeBundle(options, head, wanted, steps);
  const expiresAt = Date.parse(trust.timestamp?.expires ?? "");
  return { ...written, revision: number, steps: steps.length, expiresAt };
}

async function collectSigned({ client, root, signal }: ExportOptions) {
  const documents = new Map<string, Uint8Array>();
  const source = new MirrorSource(
    [
      {
        name: client.url,
        open: (name, at, stop) => openDocument(client.connection, `/v1/trust/${name}`, at, stop),
      },
    ],
    systemClock,
    undefined,
    signal,
  );
  const kept = {
    fetch: (name: string, bytesMax: number, accept: (bytes: Uint8Array) => Promise<void>) =>
      source.fetch(name, bytesMax, async (bytes) => {
        await accept(bytes);
        documents.set(name, bytes);
      }),
  };
  const store = new MetadataCopy(null);
  let pinned = root;
  if (pinned === null) pinned = await client.signedDocument("root.json", { signal });
  await TrustClient.pin(store, pinned);
  const trust = await TrustClient.open(store, systemClock);
  await trust.refresh(kept);
  // Whoever has an older root pinned needs the ones between.
  const { version } = trust.root;
  for (let number = Math.max(1, version - ROOTS_MAX); number <= version; number++) {
    const name = `${number}.root.json`;
    if (!documents.has(name)) documents.set(name, await client.signedDocument(name, { signal }));
  }
  // For a first installation, which pins the newest.
  documents.set("root.json", documents.get(`${version}.root.json`) ?? new Uint8Array());
  return { documents, trust };
}

async function collectLog(
  client: HubClient,
  epoch: number,
  size: number,
  signal: AbortSignal | undefined,
): Promise<unknown[]> {
  const entries: unknown[] = [];
  while (entries.length < size) {
    const path = `/v1/trust/log/${epoch}?after=${entries.length}&to=${size}`;
    const { body } = await client.connection.read(
      { method: "GET", path, signal },
      BUNDLE_LIMITS.documentBytesMax,
    );
    const page = (JSON.parse(body.toString("utf8")) as { entries?: unknown[] }).entries ?? [];
    if (page.length === 0) break;
    entries.push(...page);
  }
  return entries;
}

interface ReadManifest {
  readonly target: string;
  readonly sha256: Sha256;
  readonly entries: readonly { readonly sha256: Sha256 }[];
}

async function readManifests(
  client: HubClient,
  document: RevisionDocument,
  signal: AbortSignal | undefined,
): Promise<ReadManifest[]> {
  const manifests: ReadManifest[] = [];
  for (const { target: name, ...ref } of document.manifests) {
    const target = parseTarget(name);
    if (target === null) throw new LockstepError("MANIFEST_INVALID", `${name} is no deploy target`);
    const { entries } = parseManifest(await client.manifest({ target, ...ref }, { signal }));
    manifests.push({ target: name, sha256: ref.sha256, entries });
  }
  return manifests;
}

/** What installations at any of these revisions have for certain. */
async function commonContents(
  client: HubClient,
  from: readonly number[],
  signal: AbortSignal | undefined,
): Promise<ReadonlySet<Sha256>> {
  const sets: Set<Sha256>[] = [];
  for (const number of from) {
    const manifests = await readManifests(client, await client.revision(number, { signal }), signal);
    sets.push(new Set(manifests.flatMap(({ entries }) => entries.map(({ sha256 }) => sha256))));
  }
  const [first, ...others] = sets;
  return new Set([...(first ?? [])].filter((sha256) => others.every((each) => each.has(sha256))));
}

interface CollectedStep {
  readonly step: BundleStep;
  readonly bytes: Buffer;
}

/** Steps from the revisions that were named, where the hub has them; what none makes, comes whole. */
async function collectSteps(
  client: HubClient,
  document: RevisionDocument,
  from: readonly number[],
  signal: AbortSignal | undefined,
): Promise<CollectedStep[]> {
  const steps: CollectedStep[] = [];
  const now = new Map(document.manifests.map(({ target, sha256 }) => [target, sha256]));
  for (const number of from)
    for (const former of (await client.revision(number, { signal })).manifests) {
      const to = now.get(former.target);
      const known = steps.some(({ step }) => step.from === former.sha256 && step.to === to);
      if (to === undefined || to === former.sha256 || known) continue;
      const bytes = await fetchStep(client, former.sha256, to, signal);
      if (bytes === null) continue;
      const etag = stepTag(former.sha256, to);
      steps.push({ step: { from: former.sha256, to, sha256: digestOf(bytes), etag }, bytes });
    }
  return steps;
}

async function fetchStep(
  client: HubClient,
  from: Sha256,
  to: Sha256,
  signal: AbortSignal | undefined,
): Promise<Buffer | null> {
  for (let attempt = 0; attempt < STEP_ATTEMPTS_MAX; attempt++)
    try {
      const answer = await client.step(from, to, { offset: 0, waitSeconds: STEP_WAIT_SECONDS, signal });
      if (answer === null) return null;
      const chunks: Buffer[] = [];
      let length = 0;
      for await (const chunk of answer.chunks) {
        length += chunk.length;
        if (length > STEP_BYTES_MAX) return null;
        chunks.push(chunk);
      }
      return Buffer.concat(chunks);
    } catch (error) {
      if (!isLockstepError(error, "HUB_BUSY")) throw error;
    }
  return null;
}

function digestOf(bytes: Uint8Array): Sha256 {
  return createHash("sha256").update(bytes).digest("hex");
}

async function writeBundle(
  { client, file, signal }: ExportOptions,
  head: BundleHead,
  wanted: readonly Sha256[],
  steps: readonly CollectedStep[],
): Promise<Pick<Exported, "file" | "contents" | "bytes" | "resumed">> {
  const path = resolve(file);
  const part = `${path}.part`;
  const out = await open(part, "a+", 0o600);
  try {
    const began = await wholeContents(part, head);
    let resumed = began?.contents ?? 0;
    await out.truncate(began?.end ?? 0);
    if (began === null) {
      resumed = 0;
      await out.appendFile(encodeMagic());
      await out.appendFile(encodeDocument(head));
    }
    for (let at = resumed; at < wanted.length; at += ASK_AT_ONCE)
      await appendContents(client, out, wanted.slice(at, at + ASK_AT_ONCE), signal);
    for (const { step, bytes } of steps.slice(Math.max(0, resumed - wanted.length))) {
      const { length } = bytes;
      const header = { sha256: step.sha256, encoding: "identity", size: length, stored: length } as const;
      await out.appendFile(encodeContentHeader(header));
      await out.appendFile(bytes);
    }
    await out.appendFile(encodeEnd(head.contents.length));
    await out.sync();
    await rename(part, path);
    await realDisk.syncDirectories([dirname(path)]);
    return { file: path, contents: head.contents.length, bytes: (await stat(path)).size, resumed };
  } finally {
    await out.close();
  }
}

/** Where the whole contents of an earlier try end, and how many they are; null: it was another bundle, or nothing. */
async function wholeContents(
  part: string,
  head: BundleHead,
): Promise<{ readonly end: number; readonly contents: number } | null> {
  const reader = new ContentStreamReader(BUNDLE_LIMITS);
  const expected = encodeDocument(head);
  let end = 0;
  let contents = 0;
  let same = false;
  try {
    for await (const chunk of createReadStream(part) as AsyncIterable<Buffer>)
      for (const event of reader.push(chunk))
        if (event.kind === "document") {
          same = JSON.stringify(event.value) === JSON.stringify(head);
          if (!same) return null;
          end = encodeMagic().length + expected.length;
        } else if (event.kind === "content-end") {
          if (event.header.sha256 !== head.contents[contents]) return null;
          end += CONTENT_HEADER_BYTES + event.header.stored;
          contents++;
        }
  } catch {
    return null;
  }
  return same ? { end, contents } : null;
}

/** Asks for contents and writes them as they come, in the order asked for. */
async function appendContents(
  client: HubClient,
  out: FileHandle,
  part: readonly Sha256[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const reader = new ContentStreamReader(BUNDLE_LIMITS);
  let next = 0;
  for await (const chunk of await client.bundle(part, { signal }))
    for (const event of reader.push(chunk))
      if (event.kind === "content") {
        if (event.header.sha256 !== part[next]) throw unasked(event.header.sha256);
        next++;
        await out.appendFile(encodeContentHeader(event.header));
      } else if (event.kind === "bytes") await out.appendFile(event.bytes);
  if (!reader.complete || next !== part.length)
    throw new LockstepError("HUB_UNREACHABLE", "the hub's bundle ended before everything had come", {
      expected: counted(part.length, "content"),
      found: next,
      hint: "Run it again: it goes on after what has come.",
    });
}

function unasked(sha256: Sha256): LockstepError {
  return new LockstepError("HUB_ANSWER_INVALID", "the hub sent a content that was not asked for", {
    found: sha256,
  });
}

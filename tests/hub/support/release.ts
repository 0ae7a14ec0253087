/** Releases made of words: what a loader sends, without a directory and without the loader. */
import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import {
  CONTENT_STREAM_TYPE,
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  type LoadFile,
  type LoadRequest,
  type LoadResult,
} from "@lockstep/protocol";
import { type Answer, ask, askJson } from "./requests.ts";
import type { TestHub } from "./test-hub.ts";

export interface ReleaseFile {
  readonly content: string | Buffer;
  readonly targets?: readonly string[] | null;
  readonly mode?: number;
  readonly backup?: boolean;
  readonly version?: string | null;
}

export interface Release {
  readonly request: LoadRequest;
  /** By digest. */
  readonly contents: ReadonlyMap<string, Buffer>;
}

/** A release of a module. A text stands for a file of the role Server. */
export function release(
  files: Readonly<Record<string, string | ReleaseFile>>,
  changes: Partial<Omit<LoadRequest, "module">> & {
    readonly module?: string;
    readonly version?: string;
  } = {},
): Release {
  const contents = new Map<string, Buffer>();
  const rows: LoadFile[] = Object.entries(files).map(([path, given]) => {
    const file = typeof given === "string" ? { content: given } : given;
    const bytes = Buffer.from(file.content);
    const sha256 = hash("sha256", bytes, "hex");
    contents.set(sha256, bytes);
    return {
      path,
      size: bytes.length,
      sha256,
      mode: file.mode ?? 0o644,
      ...(file.version === undefined ? {} : { version: file.version }),
      ...(file.backup === undefined ? {} : { backup: file.backup }),
      targets: file.targets === null ? null : [...(file.targets ?? ["role:Server"])],
    };
  });
  const { module, version, ...rest } = changes;
  return {
    contents,
    request: {
      module: { id: module ?? "APP", version: version ?? "1.0", name: null, requires: [] },
      kind: "version",
      note: null,
      declared: null,
      files: rows,
      allowDowngrade: false,
      ...rest,
    },
  };
}

/** One content as a loader sends it: compressed where that is smaller. */
export function frame(
  bytes: Buffer,
  announced: Partial<Parameters<typeof encodeContentHeader>[0]> = {},
): Buffer {
  const packed = zstdCompressSync(bytes);
  const zstd = packed.length < bytes.length;
  const stored = zstd ? packed : bytes;
  const header = encodeContentHeader({
    sha256: hash("sha256", bytes, "hex"),
    encoding: zstd ? "zstd" : "identity",
    size: bytes.length,
    stored: stored.length,
    ...announced,
  });
  return Buffer.concat([header, stored]);
}

/** The body of POST /v1/loads, piece by piece. */
export function* loadStream(request: LoadRequest, contents: Iterable<Buffer>): Generator<Uint8Array, void> {
  yield encodeMagic();
  yield encodeDocument(request);
  let count = 0;
  for (const bytes of contents) {
    yield frame(bytes);
    count++;
  }
  yield encodeEnd(count);
}

/** Sends a body to POST /v1/loads. */
export function sendLoad(
  hub: Pick<TestHub, "url" | "token">,
  stream: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<Answer> {
  return ask(hub, "POST", "/v1/loads", { stream, headers: { "content-type": CONTENT_STREAM_TYPE } });
}

/** Compares and loads as a loader does. Fails the test when the hub refuses. */
export async function load(
  hub: Pick<TestHub, "url" | "token">,
  { request, contents }: Release,
): Promise<LoadResult> {
  const { missing } = await askJson<{ missing: string[] }>(hub, "POST", "/v1/loads/compare", request);
  const wanted = missing.map((sha256) => contents.get(sha256) ?? assert.fail(`the hub asks for ${sha256}`));
  const answer = await sendLoad(hub, loadStream(request, wanted));
  assert.equal(answer.status, 200, answer.body.toString("utf8"));
  return answer.json() as unknown as LoadResult;
}

/** Loads, and returns the revision that carries it once the DBQueue is done. */
export async function loadAndSettle(hub: TestHub, what: Release): Promise<number> {
  const { load: id } = await load(hub, what);
  await hub.settled();
  if (id === 0) return (await askJson<{ revision: number }>(hub, "GET", "/v1/revision")).revision;
  const { revision } = await askJson<{ revision: number | null }>(hub, "GET", `/v1/loads/${id}/revision`);
  assert.notEqual(revision, null);
  return revision ?? 0;
}

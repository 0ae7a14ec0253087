import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { zstdCompressSync } from "node:zlib";
import {
  byPath,
  type FileEntry,
  formatTarget,
  type Manifest,
  parseTarget,
  roleWithParents,
} from "@lockstep/core";
import {
  CONTENT_STREAM_TYPE,
  diffEntries,
  encodeContentHeader,
  encodeEnd,
  encodeMagic,
  formatDelta,
  formatManifest,
  type InstallationReport,
  type RevisionDocument,
} from "@lockstep/protocol";

/**
 * A hub that is all faults: it serves the routes that an installation uses, from real manifests, and cuts, lies, stalls
 * and refuses on order. The real hub does none of that, so it cannot show what happens then.
 */
export interface SmallFile {
  readonly content: Buffer | string;
  readonly mode?: number;
  readonly backup?: boolean;
  /** `role:...` or `package:...` */
  readonly targets: readonly string[];
}
export type SmallRelease = Readonly<Record<string, SmallFile>>;

export interface Faults {
  /** Cut the connection after this many bytes of contents in one answer; each answer anew. */
  cutAfterBytes?: number;
  /** How many answers are cut; then it goes well. */
  cuts?: number;
  /** Answer nothing but this for a number of requests. */
  refuse?: { status: number; body?: string; headers?: Record<string, string>; times: number; match?: RegExp };
  /** Change what is sent. */
  corrupt?: (sha256: string, bytes: Buffer) => Buffer;
  /** Change a compressed frame as it is sent. */
  corruptFrame?: (sha256: string, frame: Buffer) => Buffer;
  /** Hold the answer to a request back until this settles. */
  hold?: (path: string) => Promise<void> | undefined;
  /** Ignore Range. */
  noRanges?: boolean;
}

const sha256Of = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

export class SmallHub {
  readonly faults: Faults = {};
  readonly requests: string[] = [];
  readonly reports = new Map<string, InstallationReport>();
  settings: Record<string, string | boolean | number> = {};
  autoUpdate = true;
  pollSeconds = 1;
  token: string | null = null;
  /** Bytes of contents sent, in all answers. */
  contentBytes = 0;
  readonly #server: Server;
  readonly #contents = new Map<string, Buffer>();
  readonly #manifests = new Map<string, { text: string; manifest: Manifest }>();
  readonly #revisions: RevisionDocument[] = [];
  readonly #waiting = new Set<() => void>();
  #url = "";

  constructor() {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => response.destroy(error as Error));
    });
    this.#server.keepAliveTimeout = 5000;
  }

  static async start(): Promise<SmallHub> {
    const hub = new SmallHub();
    await new Promise<void>((resolve) => hub.#server.listen(0, "127.0.0.1", resolve));
    hub.#url = `http://127.0.0.1:${(hub.#server.address() as AddressInfo).port}`;
    return hub;
  }

  get url(): string {
    return this.#url;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Stops answering, as if the machine were gone; the port stays unused. */
  async vanish(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }

  get revision(): number {
    return this.#revisions.length;
  }

  document(number: number): RevisionDocument {
    const document = this.#revisions[number - 1];
    if (document === undefined) throw new RangeError(`no revision ${number}`);
    return document;
  }

  /** Makes these files the next software revision. `archive` is its Update.zip. */
  publish(
    release: SmallRelease,
    options: {
      archive?: Buffer;
      packageClosure?: Record<string, string[]>;
      selectableRoles?: string[];
      selectablePackages?: string[];
    } = {},
  ): number {
    const byTarget = new Map<string, FileEntry[]>();
    for (const [path, file] of Object.entries(release)) {
      const content = Buffer.from(file.content);
      const sha256 = this.add(content);
      const entry = {
        path,
        size: content.length,
        sha256,
        mode: file.mode ?? 0o644,
        backup: file.backup ?? false,
      };
      for (const target of file.targets) {
        const entries = byTarget.get(target) ?? [];
        entries.push(entry);
        byTarget.set(target, entries);
      }
    }
    for (const target of [...byTarget.keys()])
      if (target.startsWith("role:"))
        for (const parent of roleWithParents(target.slice(5)))
          if (!byTarget.has(`role:${parent}`)) byTarget.set(`role:${parent}`, []);
    const manifests = [...byTarget]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, entries]) => {
        const target = parseTarget(name);
        if (target === null) throw new RangeError(name);
        return this.addManifest({ target, entries: entries.sort(byPath) });
      });
    const roles = [...byTarget.keys()]
      .filter((name) => name.startsWith("role:"))
      .map((name) => name.slice(5));
    const packages = [...byTarget.keys()]
      .filter((name) => name.startsWith("package:"))
      .map((name) => name.slice(8));
    const number = this.#revisions.length + 1;
    this.#revisions.push({
      number,
      digest: sha256Of(JSON.stringify(manifests)),
      createdAt: 0,
      manifests,
      updateArchive:
        options.archive === undefined
          ? null
          : { sha256: this.add(options.archive), size: options.archive.length },
      packageClosure: options.packageClosure ?? {},
      selectableRoles: options.selectableRoles ?? roles,
      selectablePackages: options.selectablePackages ?? packages,
    });
    for (const wake of this.#waiting) wake();
    return number;
  }

  add(content: Buffer): string {
    const sha256 = sha256Of(content);
    this.#contents.set(sha256, content);
    return sha256;
  }

  addManifest(manifest: Manifest): RevisionDocument["manifests"][number] {
    const text = formatManifest(manifest);
    const sha256 = sha256Of(text);
    this.#manifests.set(sha256, { text, manifest });
    return {
      target: formatTarget(manifest.target),
      sha256,
      size: Buffer.byteLength(text),
      files: manifest.entries.length,
      bytes: manifest.entries.reduce((sum, entry) => sum + entry.size, 0),
    };
  }

  forgetManifests(): void {
    this.#manifests.clear();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.#url);
    this.requests.push(`${request.method} ${url.pathname}`);
    await this.faults.hold?.(url.pathname);
    const refuse = this.faults.refuse;
    if (refuse !== undefined && refuse.times > 0 && (refuse.match?.test(url.pathname) ?? true)) {
      refuse.times--;
      response.writeHead(refuse.status, { "content-type": "application/json", ...refuse.headers });
      response.end(refuse.body ?? "");
      return;
    }
    if (this.token !== null && request.headers.authorization !== `Bearer ${this.token}`) {
      this.#error(response, 401, "AUTHENTICATION_REQUIRED", "a token is needed");
      return;
    }
    await this.#route(url, request, response);
  }

  async #route(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, , first = "", second = "", third = ""] = url.pathname.split("/");
    if (first === "revision") return await this.#semaphore(url, request, response);
    if (first === "revisions") {
      const document = this.#revisions[Number(second) - 1];
      return document === undefined
        ? this.#error(response, 404, "REVISION_UNKNOWN", `no revision ${second}`)
        : this.#json(response, document);
    }
    if (first === "manifests" && second === "sha256") {
      const found = this.#manifests.get(third);
      if (found === undefined) return void this.#error(response, 404, "NOT_FOUND", "no such manifest");
      response.end(found.text);
      return;
    }
    if (first === "manifests" && second === "delta") {
      const from = this.#manifests.get(url.searchParams.get("from") ?? "");
      const to = this.#manifests.get(url.searchParams.get("to") ?? "");
      if (from === undefined || to === undefined)
        return void this.#error(response, 404, "NOT_FOUND", "a side is gone");
      response.end(formatDelta(diffEntries(from.manifest.entries, to.manifest.entries)));
      return;
    }
    if (first === "files") return this.#content(third, request, response);
    if (first === "bundle") return await this.#bundle(request, response);
    if (first === "settings") return void this.#json(response, this.settings);
    if (first === "installations") {
      this.reports.set(second, JSON.parse((await readBody(request)).toString()) as InstallationReport);
      return void this.#json(response, {});
    }
    this.#error(response, 404, "NOT_FOUND", url.pathname);
  }

  async #semaphore(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const after = url.searchParams.get("after");
    const wait = Number(url.searchParams.get("wait") ?? 0);
    if (after !== null && Number(after) === this.revision && wait > 0) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, wait * 1000);
        this.#waiting.add(wake);
        response.once("close", wake);
      });
    }
    if (request.headers["if-none-match"] === `"${this.revision}"`) {
      response.writeHead(304, { etag: `"${this.revision}"` });
      response.end();
      return;
    }
    response.setHeader("etag", `"${this.revision}"`);
    this.#json(response, {
      revision: this.revision,
      autoUpdate: this.autoUpdate,
      pollSeconds: this.pollSeconds,
    });
  }

  #content(sha256: string, request: IncomingMessage, response: ServerResponse): void {
    const stored = this.#stored(sha256);
    if (stored === null) return void this.#error(response, 404, "FILE_UNKNOWN", "no such content");
    const zstd = stored.encoding === "zstd" && /\bzstd\b/.test(String(request.headers["accept-encoding"]));
    const whole = zstd ? stored.bytes : stored.content;
    const etag = zstd ? `"${sha256}-zstd"` : `"${sha256}"`;
    if (zstd) response.setHeader("content-encoding", "zstd");
    response.setHeader("etag", etag);
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    if (range !== null && this.faults.noRanges !== true && request.headers["if-range"] === etag) {
      const from = Number(range[1]);
      if (from >= whole.length) {
        response.writeHead(416, { "content-range": `bytes */${whole.length}` });
        response.end();
        return;
      }
      response.writeHead(206, {
        "content-range": `bytes ${from}-${whole.length - 1}/${whole.length}`,
        "content-length": whole.length - from,
      });
      this.#send(response, whole.subarray(from));
      return;
    }
    response.writeHead(200, { "content-length": whole.length });
    this.#send(response, whole);
  }

  async #bundle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { sha256 } = JSON.parse((await readBody(request)).toString()) as { sha256: string[] };
    const parts: Buffer[] = [Buffer.from(encodeMagic())];
    for (const each of sha256) {
      const stored = this.#stored(each);
      if (stored === null) return void this.#error(response, 404, "FILE_UNKNOWN", "no such content");
      const { encoding, bytes, content } = stored;
      parts.push(
        Buffer.from(
          encodeContentHeader({ sha256: each, encoding, size: content.length, stored: bytes.length }),
        ),
        bytes,
      );
    }
    parts.push(Buffer.from(encodeEnd(sha256.length)));
    response.writeHead(200, { "content-type": CONTENT_STREAM_TYPE });
    this.#send(response, Buffer.concat(parts));
  }

  /** As the hub keeps it: compressed where that is smaller. */
  #stored(sha256: string): { encoding: "identity" | "zstd"; bytes: Buffer; content: Buffer } | null {
    const found = this.#contents.get(sha256);
    if (found === undefined) return null;
    const content = this.faults.corrupt?.(sha256, found) ?? found;
    const compressed = zstdCompressSync(content);
    return compressed.length < content.length
      ? { encoding: "zstd", bytes: this.faults.corruptFrame?.(sha256, compressed) ?? compressed, content }
      : { encoding: "identity", bytes: content, content };
  }

  #send(response: ServerResponse, bytes: Buffer): void {
    const { faults } = this;
    if (faults.cutAfterBytes !== undefined && (faults.cuts ?? 0) > 0 && bytes.length > faults.cutAfterBytes) {
      faults.cuts = (faults.cuts ?? 0) - 1;
      const piece = bytes.subarray(0, faults.cutAfterBytes);
      this.contentBytes += piece.length;
      response.write(piece, () => setTimeout(() => response.destroy(), 5));
      return;
    }
    this.contentBytes += bytes.length;
    response.end(bytes);
  }

  #json(response: ServerResponse, value: unknown): void {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(value));
  }

  #error(response: ServerResponse, status: number, code: string, message: string): void {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify({ error: { code, message } }));
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

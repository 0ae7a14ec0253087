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
  type TransferSettings,
} from "@lockstep/core";
import { makeStep, sourceOf } from "@lockstep/delta";
import { readingToken } from "@lockstep/platform";
import {
  CONTENT_STREAM_TYPE,
  diffEntries,
  encodeContentHeader,
  encodeEnd,
  encodeMagic,
  formatDelta,
  formatManifest,
  formatSignedMark,
  type InstallationReport,
  type RevisionDocument,
  stepTag,
} from "@lockstep/protocol";
import { packChanges, type ReleaseEntry } from "@lockstep/trust";
import { SmallSigning } from "./small-signing.ts";

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
  /** Change a step as it is sent. */
  corruptStep?: (step: Buffer) => Buffer;
}

const sha256Of = (bytes: Buffer | string) => createHash("sha256").update(bytes).digest("hex");

export class SmallHub {
  readonly faults: Faults = {};
  readonly requests: string[] = [];
  readonly signing = new SmallSigning();
  readonly reports = new Map<string, InstallationReport>();
  /** Members of a report that it does not know; as a hub of an older version it refuses a report that has one. */
  unknownInReports: readonly string[] = [];
  refusedReports = 0;
  settings: Record<string, string | boolean | number> = {};
  autoUpdate = true;
  pollSeconds = 1;
  /** Limits that it sets for installations. */
  transfer: TransferSettings | null = null;
  token: string | null = null;
  /** Whether it has steps between manifests; as a hub of an older version it has not. */
  steps = false;
  /** Settles when its steps are made. */
  stepsMade: Promise<void> = Promise.resolve();
  /** Whether it says that a step is not made yet when the time is over that was asked for; else it says nothing until it is. */
  endsStepWaits = true;
  /** How long each who asked for a step would wait for it, in seconds. */
  readonly stepWaits: number[] = [];
  /** Whether it tells relays that there are no orders. */
  saysNoOrders = false;
  /** Whether it says to installations what is signed now; as a hub of an older version it does not. */
  saysSigned = false;
  /** Whether it tells all new metadata in one answer; as a hub of an older version it does not. */
  changes = true;
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

  /** What the semaphore says, where that is not what is published. */
  announced: number | null = null;

  get revision(): number {
    return this.announced ?? this.#revisions.length;
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

  /** How many bytes of a content travel. */
  travellingBytes(sha256: string): number {
    return this.#stored(sha256)?.bytes.length ?? 0;
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
    // As the schema of the hub has it.
    if (url.pathname.startsWith("/v1/steps/") && Number(url.searchParams.get("wait") ?? 0) > 30)
      return void this.#error(response, 400, "REQUEST_INVALID", "wait is longer than a hub waits");
    const refuse = this.faults.refuse;
    if (refuse !== undefined && refuse.times > 0 && (refuse.match?.test(url.pathname) ?? true)) {
      refuse.times--;
      response.writeHead(refuse.status, { "content-type": "application/json", ...refuse.headers });
      response.end(refuse.body ?? "");
      return;
    }
    if (this.token !== null && !this.#accepts(request.headers.authorization)) {
      this.#error(response, 401, "AUTHENTICATION_REQUIRED", "a token is needed");
      return;
    }
    await this.#route(url, request, response);
  }

  #accepts(authorization: string | undefined): boolean {
    const token = this.token ?? "";
    return authorization === `Bearer ${token}` || authorization === `Bearer ${readingToken(token)}`;
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
    if (first === "trust") return await this.#trust(second, url, response);
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
    if (first === "steps" && this.steps) {
      if (await this.#isMade(Number(url.searchParams.get("wait") ?? 0)))
        return this.#step(second, third, request, response);
      return void this.#error(response, 503, "HUB_BUSY", "this step is being made");
    }
    if (first === "files") return this.#content(third, request, response);
    if (first === "bundle") return await this.#bundle(request, response);
    if (first === "settings") return void this.#json(response, this.settings);
    if (first === "installations" && request.method === "PUT") {
      const report = JSON.parse((await readBody(request)).toString()) as InstallationReport;
      const unknown = this.unknownInReports.find((member) => member in report);
      if (unknown !== undefined) {
        this.refusedReports++;
        return void this.#error(response, 400, "REQUEST_INVALID", `${unknown} is not known`);
      }
      this.reports.set(second, report);
      return void this.#json(response, {});
    }
    this.#error(response, 404, "NOT_FOUND", url.pathname);
  }

  async #trust(name: string, url: URL, response: ServerResponse): Promise<void> {
    if (this.#revisions.length > 0) await this.signing.sign(this.#revisions);
    if (name === "changes" && this.changes) return void response.end(await this.#changes(url));
    const document =
      name === "log"
        ? this.signing.entries(this.#revisions, Number(url.searchParams.get("after")))
        : this.signing.documents.get(name);
    if (document === undefined) return void this.#error(response, 404, "NOT_FOUND", name);
    response.end(document);
  }

  async #changes(url: URL): Promise<Buffer> {
    const known = (name: string) => Number(url.searchParams.get(name));
    const newest = this.#revisions.length;
    const names = ["timestamp.json"];
    for (const role of ["snapshot", "targets"])
      if (newest > known(role)) names.push(`${newest}.${role}.json`);
    const nextRoot = `${known("root") + 1}.root.json`;
    const documents = new Map([[nextRoot, this.signing.documents.get(nextRoot) ?? null]]);
    for (const name of names) documents.set(name, this.signing.documents.get(name) ?? null);
    const { entries } = JSON.parse(this.signing.entries(this.#revisions, known("log"))) as {
      entries: ReleaseEntry[];
    };
    return await packChanges({ documents, entries });
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
    if (this.saysNoOrders && request.headers["lockstep-relay"] !== undefined)
      response.setHeader("lockstep-orders", "none");
    const { "lockstep-installation": installation, "lockstep-relay": relay } = request.headers;
    if (this.saysSigned && (installation ?? relay) !== undefined)
      response.setHeader("lockstep-signed", await this.#signedMark());
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
      ...(this.transfer === null ? {} : { transfer: this.transfer }),
    });
  }

  async #signedMark(): Promise<string> {
    await this.signing.sign(this.#revisions);
    const { length: revision } = this.#revisions;
    const roots = [...this.signing.documents.keys()].filter((name) => /^\d+\.root\.json$/.test(name)).length;
    return formatSignedMark({ root: roots, revision, digest: this.document(revision).digest });
  }

  async #isMade(waitSeconds: number): Promise<boolean> {
    this.stepWaits.push(waitSeconds);
    const waited = Promise.withResolvers<boolean>();
    if (!this.endsStepWaits) return await this.stepsMade.then(() => true);
    const timer = setTimeout(() => waited.resolve(false), waitSeconds * 1000);
    timer.unref();
    try {
      return await Promise.race([this.stepsMade.then(() => true), waited.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  #step(fromSha: string, toSha: string, request: IncomingMessage, response: ServerResponse): void {
    const from = this.#manifests.get(fromSha)?.manifest.entries ?? [];
    const to = this.#manifests.get(toSha)?.manifest.entries ?? [];
    const made = makeStep(
      from,
      to,
      ({ sha256 }) => sourceOf(this.#contents.get(sha256) ?? Buffer.alloc(0)),
      ({ size }) => size,
    );
    if (made === null) return void this.#error(response, 404, "STEP_NONE", "nothing to gain");
    const step = Buffer.concat(made.pieces);
    this.#ranged(this.faults.corruptStep?.(step) ?? step, stepTag(fromSha, toSha), request, response);
  }

  #content(sha256: string, request: IncomingMessage, response: ServerResponse): void {
    const stored = this.#stored(sha256);
    if (stored === null) return void this.#error(response, 404, "FILE_UNKNOWN", "no such content");
    const zstd = stored.encoding === "zstd" && /\bzstd\b/.test(String(request.headers["accept-encoding"]));
    const whole = zstd ? stored.bytes : stored.content;
    const etag = zstd ? `"${sha256}-zstd"` : `"${sha256}"`;
    if (zstd) response.setHeader("content-encoding", "zstd");
    this.#ranged(whole, etag, request, response);
  }

  #ranged(whole: Buffer, etag: string, request: IncomingMessage, response: ServerResponse): void {
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

import type { IncomingMessage } from "node:http";
import { formatTarget, type ManifestRef, type Sha256 } from "@lockstep/core";
import {
  type AssignRequest,
  type ChangedPaths,
  CONTENT_STREAM_TYPE,
  type ContentEncoding,
  type DbQueue,
  type FileList,
  type HubStatus,
  type InstallationList,
  type InstallationReport,
  type LoadComparison,
  type LoadRequest,
  type LoadResult,
  type LoadRevision,
  type RevertResult,
  type RevisionDiff,
  type RevisionDocument,
  type RevisionList,
  readSignedMark,
  type Semaphore,
  type Settings,
  type Setup,
  SIGNED_HEADER,
  type SigningStatus,
  stepTag,
  type Targets,
} from "@lockstep/protocol/wire";
import { type Checked, checkMembers, checkRevision, checkSemaphore } from "./answers.ts";
import { HubConnection, type HubOptions, type RequestDescription, type Throttle } from "./connection.ts";
import { invalidAnswer } from "./failures.ts";
import { query } from "./query.ts";
import { RelayedConnection } from "./relayed-connection.ts";
import type { SemaphoreAnswer } from "./semaphore-answer.ts";
import { type UploadOptions, type UploadPart, uploadContents } from "./upload.ts";

/**
 * The hub's HTTP interface as typed calls, one for each route. Every call throws HUB_UNREACHABLE,
 * HUB_CERTIFICATE_REFUSED, HUB_BUSY, HUB_ANSWER_INVALID or INTERRUPTED, and otherwise what the hub itself said, by its
 * code. Every call takes an abort signal.
 */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A content on its way: bytes from `offset` on, in the encoding in which the hub keeps it. */
export interface ContentAnswer {
  readonly encoding: ContentEncoding;
  /** Where the bytes begin, counted in bytes as they travel; 0 where the hub starts from the beginning. */
  readonly offset: number;
  /** Length of the whole as it travels, in bytes, or null where nobody said. */
  readonly total: number | null;
  readonly chunks: AsyncGenerator<Buffer, void>;
}

/** What has arrived of a content in an earlier try. */
export interface ContentResume {
  readonly encoding: ContentEncoding;
  /** Bytes that are here already. */
  readonly offset: number;
}

const JSON_BYTES_MAX = 256 * 1024 * 1024;
type ReportOptions = CallOptions & Pick<RequestDescription, "deferrable">;
const SIGNED_BYTES_MAX = 16 * 1024 * 1024;
const SEMAPHORE_BYTES_MAX = 64 * 1024;

export class HubClient {
  readonly connection: HubConnection;

  /** `relay`: address of a relay that is asked first for what many installations ask for. */
  constructor(options: HubOptions & { readonly relay?: string | null }) {
    const { relay = null, ...own } = options;
    this.connection = relay === null ? new HubConnection(own) : new RelayedConnection(own, relay);
  }

  /**
   * Leaves the relay because of something that came from it and was wrong. True where there was one, so that the same is
   * worth another try; false where it came from the hub.
   */
  leaveRelay(reason: unknown): boolean {
    return this.connection instanceof RelayedConnection && this.connection.leave(reason);
  }

  /** Why the relay was left, in a sentence, where it was. */
  get relayRemarks(): readonly string[] {
    return this.connection instanceof RelayedConnection ? this.connection.remarks : [];
  }

  /** The hub's address as it is written into an installation. */
  get url(): string {
    return this.connection.url.href.replace(/\/+$/, "");
  }

  /** What decides how fast answers are read, where something does. */
  get throttle(): Throttle | null {
    return this.connection.throttle;
  }

  /** Ends all idle connections; a process may also just end. */
  close(): Promise<void> {
    return this.connection.close();
  }

  /**
   * Reads the software revision (S19, S25). `known` makes it one small answer when nothing has changed; `waitSeconds`
   * asks the hub to answer as soon as it differs from `known`, at the latest after that time. `installation`: who asks.
   */
  async semaphore(
    known: number | null,
    options: CallOptions & { readonly waitSeconds?: number; readonly installation?: string } = {},
  ): Promise<SemaphoreAnswer> {
    const wait = options.waitSeconds ?? 0;
    const description: RequestDescription = {
      method: "GET",
      path: known !== null && wait > 0 ? `/v1/revision?after=${known}&wait=${wait}` : "/v1/revision",
      headers: {
        ...(known === null ? {} : { "if-none-match": `"${known}"` }),
        ...(options.installation === undefined ? {} : { "lockstep-installation": options.installation }),
      },
      signal: options.signal,
      waitMs: wait * 1000,
      accept: [304],
    };
    const answer = await this.connection.read(description, SEMAPHORE_BYTES_MAX);
    const signed = readSignedMark(answer.headers[SIGNED_HEADER]);
    if (answer.status === 304) {
      if (known === null) throw this.#invalid(description, "304 to an unconditional request", 200, 304);
      return { kind: "equal", revision: known, signed };
    }
    const semaphore = this.#checked(description, checkSemaphore(this.#json(description, answer.body)));
    // A proxy may strip the condition; the value decides, not the status.
    return semaphore.revision === known
      ? { kind: "equal", revision: known, signed }
      : { kind: "different", semaphore, signed };
  }

  /** The semaphore with its settings, whatever the caller knows. */
  async currentSemaphore(options: CallOptions = {}): Promise<Semaphore> {
    const answer = await this.semaphore(null, options);
    if (answer.kind === "different") return answer.semaphore;
    throw new TypeError("an unconditional request was answered by a comparison");
  }

  /** One software revision. Throws REVISION_UNKNOWN. */
  async revision(number: number, options: CallOptions = {}): Promise<RevisionDocument> {
    const description = this.#get(`/v1/revisions/${number}`, options);
    return this.#checked(description, checkRevision(await this.#readJson(description), number));
  }

  revisions(options: CallOptions & { readonly limit?: number } = {}): Promise<RevisionList> {
    const path = `/v1/revisions${query({ limit: options.limit })}`;
    return this.#call(this.#get(path, options), ["current", "revisions"]);
  }

  revisionDiff(from: number, to: number, options: CallOptions = {}): Promise<RevisionDiff> {
    return this.#call(this.#get(`/v1/revisions/diff${query({ from, to })}`, options), [
      "from",
      "to",
      "files",
    ]);
  }

  /** Makes a former revision's set of files the current one again, as a new revision. */
  revertRevision(number: number, options: CallOptions = {}): Promise<RevertResult> {
    return this.#call(this.#post(`/v1/revisions/${number}/revert`, {}, options), ["load", "changes"]);
  }

  /**
   * The canonical text of a manifest, its length and digest verified against the reference.
   * Throws MANIFEST_INVALID when the bytes are not the promised ones.
   */
  async manifest(ref: ManifestRef, options: CallOptions = {}): Promise<string> {
    const { readManifest } = await import("./manifest-download.ts");
    const path = `/v1/manifests/sha256/${ref.sha256}`;
    try {
      return await readManifest(this.connection, path, ref, formatTarget(ref.target), options.signal);
    } catch (error) {
      if (options.signal?.aborted === true || !this.leaveRelay(error)) throw error;
      return await readManifest(this.connection, path, ref, formatTarget(ref.target), options.signal);
    }
  }

  /**
   * The step between two manifests, from `offset` on. Null: there is none, or it is not made within `waitSeconds`; the second
   * is told by `HUB_BUSY`. Bytes come as they are, and go on where they were cut.
   */
  async step(
    from: Sha256,
    to: Sha256,
    options: CallOptions & { readonly offset: number; readonly waitSeconds: number },
  ): Promise<ContentAnswer | null> {
    const { offset, waitSeconds } = options;
    const description: RequestDescription = {
      method: "GET",
      path: `/v1/steps/${from}/${to}${query({ wait: waitSeconds })}`,
      headers: offset > 0 ? { range: `bytes=${offset}-`, "if-range": stepTag(from, to) } : {},
      signal: options.signal,
      waitMs: waitSeconds * 1000,
      accept: [404, 416],
    };
    const response = await this.connection.send(description);
    if (response.statusCode === 404) {
      response.destroy();
      return null;
    }
    if (response.statusCode === 416) {
      response.destroy();
      return { encoding: "identity", offset, total: offset, chunks: nothing() };
    }
    return this.#contentAnswer(response, description, offset, options.signal);
  }

  /**
   * What leads from one manifest to another, as text of at most `bytesMax`; null when the hub cannot say (404). Not
   * verified here.
   */
  async manifestDelta(
    from: Sha256,
    to: Sha256,
    options: CallOptions & { readonly bytesMax: number },
  ): Promise<string | null> {
    const { readDelta } = await import("./manifest-download.ts");
    const path = `/v1/manifests/delta${query({ from, to })}`;
    return await readDelta(this.connection, path, options.bytesMax, options.signal);
  }

  /**
   * One content. With `resume` only what is missing is asked for; the answer says where it begins, and begins at 0
   * when the hub holds another representation now or ignores ranges. The bytes are not verified here.
   */
  async content(
    sha256: Sha256,
    options: CallOptions & {
      readonly resume?: ContentResume;
      readonly encodings?: readonly ContentEncoding[];
    } = {},
  ): Promise<ContentAnswer> {
    const { resume } = options;
    const encodings = resume === undefined ? (options.encodings ?? ["zstd", "identity"]) : [resume.encoding];
    const ask = resume !== undefined && resume.offset > 0;
    const description: RequestDescription = {
      method: "GET",
      path: `/v1/files/sha256/${sha256}`,
      headers: {
        "accept-encoding": encodings.includes("zstd") ? "zstd" : "identity",
        ...(ask ? { range: `bytes=${resume.offset}-`, "if-range": entityTag(sha256, resume.encoding) } : {}),
      },
      signal: options.signal,
      accept: [416],
    };
    const response = await this.connection.send(description);
    if (response.statusCode === 416) {
      const total = /^bytes \*\/(\d+)$/.exec(response.headers["content-range"] ?? "")?.[1];
      response.destroy();
      // Everything is here already, as far as its length can tell.
      if (resume !== undefined && total !== undefined && Number(total) === resume.offset)
        return { encoding: resume.encoding, offset: resume.offset, total: resume.offset, chunks: nothing() };
      // What is here is not a beginning of it: ask for the whole.
      return await this.content(sha256, {
        ...options,
        resume: { encoding: encodings[0] ?? "identity", offset: 0 },
      });
    }
    return this.#contentAnswer(response, description, ask ? resume.offset : 0, options.signal);
  }

  /** Many contents in one answer, as a content stream in the order asked for. */
  async bundle(sha256: readonly Sha256[], options: CallOptions = {}): Promise<AsyncGenerator<Buffer, void>> {
    const description: RequestDescription = {
      ...this.#post("/v1/bundle", { sha256 }, options),
      headers: { accept: CONTENT_STREAM_TYPE },
      repeatable: true,
    };
    const response = await this.connection.send(description);
    const type = response.headers["content-type"]?.split(";")[0]?.trim();
    if (type !== CONTENT_STREAM_TYPE) {
      response.destroy();
      throw this.#invalid(description, "another type of content", CONTENT_STREAM_TYPE, type ?? "none");
    }
    return this.connection.chunks(response, options.signal);
  }

  /** Which keys sign what. */
  signingStatus(options: CallOptions = {}): Promise<SigningStatus> {
    return this.#call(this.#get("/v1/signing", options), ["roles", "log"]);
  }

  /** A document of signed metadata as its bytes. Not verified here. Throws NOT_FOUND. */
  async signedDocument(name: string, options: CallOptions = {}): Promise<Uint8Array> {
    return (await this.connection.read(this.#get(`/v1/trust/${name}`, options), SIGNED_BYTES_MAX)).body;
  }

  /** The targets metadata that waits for signatures. Throws NOT_FOUND. */
  async awaitingDocument(options: CallOptions = {}): Promise<string> {
    const { body } = await this.connection.read(this.#get("/v1/signing/awaiting", options), SIGNED_BYTES_MAX);
    return body.toString("utf8");
  }

  /** Hands signatures in for what waits. Throws SIGNATURE_REFUSED. */
  putSignatures(document: string, options: CallOptions = {}): Promise<SigningStatus> {
    return this.#call(this.#post("/v1/signing/targets", { document }, options), ["roles", "log"]);
  }

  /** Puts a new root in force. Throws SIGNATURE_REFUSED, TRUST_REFUSED. */
  putRoot(root: string, targets: string | null, options: CallOptions = {}): Promise<SigningStatus> {
    return this.#call(this.#post("/v1/signing/root", { root, targets }, options), ["roles", "log"]);
  }

  /** Makes a further key on the hub; returns its public half. */
  async makeSigningKey(
    role: "targets" | "snapshot" | "timestamp" | "orders",
    options: CallOptions = {},
  ): Promise<string> {
    const description = this.#post("/v1/signing/keys", { role }, options);
    return (await this.#call<{ public: string }>(description, ["public"])).public;
  }

  compareLoad(request: LoadRequest, options: CallOptions = {}): Promise<LoadComparison> {
    return this.#call(this.#post("/v1/loads/compare", request, options), ["statuses", "missing", "refusals"]);
  }

  /**
   * Loads a release: the document, then each content, as fast as the hub takes them. An answer that comes early (a
   * refusal) stops the sending. Returns when the hub has committed everything.
   */
  async load(
    request: LoadRequest,
    contents: AsyncIterable<UploadPart> | Iterable<UploadPart>,
    options: UploadOptions = {},
  ): Promise<LoadResult> {
    const path = "/v1/loads";
    const body = await uploadContents(this.connection, path, request, contents, options);
    const description: RequestDescription = { method: "POST", path };
    return this.#checked(description, checkMembers(this.#json(description, body), ["load", "changes"]));
  }

  loadRevision(
    load: number,
    options: CallOptions & { readonly waitSeconds?: number } = {},
  ): Promise<LoadRevision> {
    const wait = options.waitSeconds ?? 0;
    const description = this.#get(`/v1/loads/${load}/revision${query({ wait })}`, options);
    return this.#call({ ...description, waitMs: wait * 1000 }, ["revision"]);
  }

  files(
    options: CallOptions & { readonly match?: string; readonly after?: string; readonly limit?: number } = {},
  ): Promise<FileList> {
    const { match, after, limit } = options;
    return this.#call(this.#get(`/v1/files${query({ match, after, limit })}`, options), ["files", "next"]);
  }

  /** Every file that matches, page by page. */
  async *allFiles(
    options: CallOptions & { readonly match?: string; readonly limit?: number } = {},
  ): AsyncGenerator<FileList["files"][number], void> {
    let after: string | null = null;
    do {
      const page: FileList = await this.files(after === null ? options : { ...options, after });
      yield* page.files;
      after = page.next;
    } while (after !== null);
  }

  assignFiles(request: AssignRequest, options: CallOptions = {}): Promise<ChangedPaths> {
    return this.#call(this.#post("/v1/files/assign", request, options), ["paths"]);
  }

  removeFiles(match: string, options: CallOptions = {}): Promise<ChangedPaths> {
    return this.#call(this.#post("/v1/files/remove", { match }, options), ["paths"]);
  }

  targets(options: CallOptions = {}): Promise<Targets> {
    return this.#call(this.#get("/v1/targets", options), ["roles", "packages"]);
  }

  settings(options: CallOptions = {}): Promise<Settings> {
    return this.#call(this.#get("/v1/settings", options), []);
  }

  setSettings(settings: Settings, options: CallOptions = {}): Promise<Settings> {
    return this.#call(this.#put("/v1/settings", settings, options), []);
  }

  dbQueue(options: CallOptions = {}): Promise<DbQueue> {
    return this.#call(this.#get("/v1/dbqueue", options), ["stopped", "tasks"]);
  }

  stopDbQueue(stopped: boolean, reason: string | null, options: CallOptions = {}): Promise<DbQueue> {
    return this.#call(this.#put("/v1/dbqueue/stopped", { stopped, reason }, options), []);
  }

  async report(id: string, report: InstallationReport, options: ReportOptions = {}): Promise<void> {
    const path = `/v1/installations/${encodeURIComponent(id)}`;
    await this.connection.read({ ...this.#put(path, report, options), repeatable: true }, JSON_BYTES_MAX);
  }

  installations(options: CallOptions = {}): Promise<InstallationList> {
    return this.#call(this.#get("/v1/installations", options), ["installations"]);
  }

  status(options: CallOptions = {}): Promise<HubStatus> {
    return this.#call(this.#get("/v1/status", options), ["version", "revision"]);
  }

  /** The steps of the Configuration Wizard; with `apply` they are done. */
  setup(apply: boolean, options: CallOptions & { readonly answers?: unknown } = {}): Promise<Setup> {
    if (!apply) return this.#call(this.#get("/v1/setup", options), ["steps"]);
    return this.#call(this.#post("/v1/setup?apply=true", options.answers ?? {}, options), ["steps"]);
  }

  #get(path: string, options: CallOptions): RequestDescription {
    return { method: "GET", path, signal: options.signal };
  }

  #post(path: string, body: unknown, options: CallOptions): RequestDescription {
    return { method: "POST", path, body: JSON.stringify(body), signal: options.signal };
  }

  #put(path: string, body: unknown, options: ReportOptions): RequestDescription {
    return { ...options, method: "PUT", path, body: JSON.stringify(body) };
  }

  async #call<T>(description: RequestDescription, members: readonly string[]): Promise<T> {
    return this.#checked(description, checkMembers<T>(await this.#readJson(description), members));
  }

  async #readJson(description: RequestDescription): Promise<unknown> {
    const { body } = await this.connection.read(description, JSON_BYTES_MAX);
    return this.#json(description, body);
  }

  #json(description: RequestDescription, body: Buffer): unknown {
    const text = body.toString("utf8");
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw this.#invalid(description, "it is not JSON", "JSON", text.slice(0, 40), cause);
    }
  }

  #checked<T>(description: RequestDescription, checked: Checked<T>): T {
    if ("value" in checked) return checked.value;
    throw this.#invalid(description, checked.fault, "an answer of a hub of this version", checked.fault);
  }

  #invalid(
    description: RequestDescription,
    problem: string,
    expected: string | number,
    found: string | number,
    cause?: unknown,
  ): Error {
    return invalidAnswer(this.connection.url.origin, description.path, problem, expected, found, cause);
  }

  #contentAnswer(
    response: IncomingMessage,
    description: RequestDescription,
    asked: number,
    signal: AbortSignal | undefined,
  ): ContentAnswer {
    const said = response.headers["content-encoding"] ?? "identity";
    if (said !== "identity" && said !== "zstd") {
      response.destroy();
      throw this.#invalid(description, "its encoding", "identity or zstd", said);
    }
    const length = Number(response.headers["content-length"] ?? Number.NaN);
    let offset = 0;
    let total = Number.isSafeInteger(length) ? length : null;
    if (response.statusCode === 206) {
      const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers["content-range"] ?? "");
      if (range === null || Number(range[1]) !== asked) {
        response.destroy();
        const found = response.headers["content-range"] ?? "no Content-Range";
        throw this.#invalid(description, "another range than asked for", `bytes ${asked}-`, found);
      }
      offset = asked;
      total = range[3] === "*" ? null : Number(range[3]);
    }
    return { encoding: said, offset, total, chunks: this.connection.chunks(response, signal) };
  }
}

/** The ETag of a content in one of its representations. */
export function entityTag(sha256: Sha256, encoding: ContentEncoding): string {
  return encoding === "identity" ? `"${sha256}"` : `"${sha256}-${encoding}"`;
}

async function* nothing(): AsyncGenerator<Buffer, void> {
  // No bytes are missing.
}

import { BASE_NAME_BYTES, EMPTY_BASE, type ReportBase } from "./report-base.ts";

/**
 * Reports of many installations as one request: what a relay gathered, and what the hub answers to each.
 *
 * Reports of one site say nearly the same, so together and compressed they cost a fraction. Each keeps the credential that it came
 * with and is judged by it alone. Credentials stay outside of what is compressed: next to what neighbours write, the length of
 * the line would tell of them.
 *
 * The body: the byte 2, the name of the base (16 bytes), three bytes with the length of the credentials (big-endian), the credentials as a
 * JSON array, and a zstd frame of the JSON array `[[[id, index of its credential, report], ...], [age, ...]]`, each report as the text that
 * came, each age in whole seconds since it came. The frame builds on what stands in nearly every report, and on the base: what the same relay
 * brought before (`report-base.ts`).
 *
 * The former body, read from relays of an older version and sent to hubs of one: four bytes with the length of the credentials, whose
 * first is 0, the credentials, and a frame of the first of both arrays alone, which builds on no base.
 *
 * The answer: status 204, where all were accepted; else a zstd frame of `[[status, content type, body, seconds to wait or null], ...]`,
 * in the same order.
 */
export interface GatheredReport {
  readonly installation: string;
  /** The value of `Authorization`; null: there was none. */
  readonly authorization: string | null;
  /** As it came. */
  readonly body: string;
  /** How long ago it came to whoever gathered it, in whole seconds. */
  readonly ageSeconds: number;
}

export interface GatheredAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  /** The value of `Retry-After`; null: none. */
  readonly retryAfter: string | null;
}

export const GATHERED_REPORTS_TYPE = "application/vnd.lockstep.reports";
/** What fits into one request. A longer report, or a longer credential, travels by itself. */
export const GATHERED_REPORTS_LIMITS = {
  entries: 128,
  reportBytes: 32 * 1024,
  authorizationLength: 500,
  /** Of all reports as JSON texts. */
  textBytes: 256 * 1024,
  /** Of the request as it travels. */
  bodyBytes: 512 * 1024,
  /** Older ones are nobody's present state. */
  ageSeconds: 86_400,
} as const;
/** How old a report is that goes on, in whole seconds. */
export const REPORT_AGE_HEADER = "lockstep-age";
const LIMITS = GATHERED_REPORTS_LIMITS;
/** What JSON puts around each. */
const AROUND_BYTES = 256;
const ENTRIES_BYTES_MAX = LIMITS.textBytes + LIMITS.entries * AROUND_BYTES;
const CREDENTIALS_BYTES_MAX = 2 * LIMITS.entries * LIMITS.authorizationLength;
const ANSWER_BYTES_MAX = 4 * 1024 * 1024;
/** Of the former body. */
const LENGTH_BYTES = 4;
const FORMAT = 2;
const FORMAT_BYTES = 1;
const CREDENTIALS_LENGTH_BYTES = 3;
const HEAD_BYTES = FORMAT_BYTES + BASE_NAME_BYTES + CREDENTIALS_LENGTH_BYTES;
/** As a part of an address: no step upwards in it. */
const INSTALLATION = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}$/;
const AUTHORIZATION = /^[\x20-\x7e]*$/;

/** How much of `textBytes` a report takes, in bytes; null: it has to travel by itself. */
export function gatheredSize({
  installation,
  authorization,
  body,
}: Omit<GatheredReport, "ageSeconds">): number | null {
  if (!INSTALLATION.test(installation) || !isCredential(authorization)) return null;
  if (Buffer.byteLength(body) > LIMITS.reportBytes) return null;
  return Buffer.byteLength(JSON.stringify(body));
}

/** Writes the body of the request over a base that the hub has. At most `entries` reports of at most `textBytes` in all. */
export function packReports(reports: readonly GatheredReport[], base: ReportBase = EMPTY_BASE): Buffer {
  const { credentials, entries } = entriesOf(reports);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(FORMAT);
  head.write(base.name, FORMAT_BYTES, "hex");
  head.writeUIntBE(credentials.length, FORMAT_BYTES + BASE_NAME_BYTES, CREDENTIALS_LENGTH_BYTES);
  const ages = reports.map(({ ageSeconds }) => ageSeconds);
  return Buffer.concat([head, credentials, compress([entries, ages], { dictionary: dictionaryOver(base) })]);
}

/** The same as hubs of an older version read it: without ages, and over no base. */
export function packFormerReports(reports: readonly GatheredReport[]): Buffer {
  const { credentials, entries } = entriesOf(reports);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(credentials.length);
  return Buffer.concat([length, credentials, compress(entries, { dictionary: DICTIONARY })]);
}

function entriesOf(reports: readonly GatheredReport[]) {
  const credentials = [...new Set(reports.map(({ authorization }) => authorization))];
  const entries = reports.map(({ installation, authorization, body }) => [
    installation,
    credentials.indexOf(authorization),
    body,
  ]);
  return { credentials: Buffer.from(JSON.stringify(credentials)), entries };
}

/** The name of the base over which the body of a request was written; null: it names none. */
export function baseNameOf(bytes: Uint8Array): string | null {
  if (bytes.length < HEAD_BYTES || bytes[0] !== FORMAT) return null;
  return Buffer.from(bytes.subarray(FORMAT_BYTES, FORMAT_BYTES + BASE_NAME_BYTES)).toString("hex");
}

/** Reads the body of the request, which anybody may have sent; null: it is none, or more than allowed, or over another base. */
export function unpackReports(
  bytes: Uint8Array,
  base: ReportBase = EMPTY_BASE,
): readonly GatheredReport[] | null {
  const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (body.length < HEAD_BYTES || body.length > LIMITS.bodyBytes) return null;
  const former = body[0] !== FORMAT;
  if (!former && baseNameOf(body) !== base.name) return null;
  const begin = former ? LENGTH_BYTES : HEAD_BYTES;
  const end = begin + (former ? body.readUInt32BE(0) : readCredentialsLength(body));
  if (end > body.length || end > CREDENTIALS_BYTES_MAX) return null;
  const credentials = parse(body.subarray(begin, end));
  if (!Array.isArray(credentials) || !credentials.every(isCredential)) return null;
  const dictionary = former ? DICTIONARY : dictionaryOver(base);
  const read = decompress(body.subarray(end), ENTRIES_BYTES_MAX, { dictionary });
  if (!Array.isArray(read)) return null;
  const [entries, ages, ...rest]: readonly unknown[] = former ? [read, null] : read;
  if (!Array.isArray(entries) || entries.length === 0 || entries.length > LIMITS.entries) return null;
  if (!former && (!Array.isArray(ages) || ages.length !== entries.length || rest.length > 0)) return null;
  const reports: GatheredReport[] = [];
  for (const [n, entry] of entries.entries()) {
    const [installation, index, text, ...more]: readonly unknown[] = Array.isArray(entry) ? entry : [];
    if (typeof installation !== "string" || !INSTALLATION.test(installation)) return null;
    if (typeof index !== "number" || typeof text !== "string" || more.length > 0) return null;
    const authorization: unknown = credentials[index];
    if (!isCredential(authorization) || Buffer.byteLength(text) > LIMITS.reportBytes) return null;
    const ageSeconds: unknown = Array.isArray(ages) ? ages[n] : 0;
    if (!isAge(ageSeconds)) return null;
    reports.push({ installation, authorization, body: text, ageSeconds });
  }
  return reports;
}

function readCredentialsLength(body: Buffer): number {
  return body.readUIntBE(FORMAT_BYTES + BASE_NAME_BYTES, CREDENTIALS_LENGTH_BYTES);
}

/** Whether something is an age of a report, in seconds. */
export function isAge(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= LIMITS.ageSeconds;
}

/** Writes the answer to it. */
export function packAnswers(answers: readonly GatheredAnswer[]): Buffer {
  return compress(answers.map(({ status, type, body, retryAfter }) => [status, type, body, retryAfter]));
}

/** Reads the answer to `count` reports; null: it is none. */
export function unpackAnswers(bytes: Buffer, count: number): readonly GatheredAnswer[] | null {
  const entries = decompress(bytes, ANSWER_BYTES_MAX);
  if (!Array.isArray(entries) || entries.length !== count) return null;
  const answers: GatheredAnswer[] = [];
  for (const entry of entries) {
    const [status, type, body, retryAfter]: readonly unknown[] = Array.isArray(entry) ? entry : [];
    if (typeof status !== "number" || !Number.isInteger(status) || status < 200 || status > 599) return null;
    if (typeof type !== "string" || !AUTHORIZATION.test(type) || typeof body !== "string") return null;
    if (retryAfter !== null && (typeof retryAfter !== "string" || !/^\d{1,9}$/.test(retryAfter))) return null;
    answers.push({ status, type, body, retryAfter });
  }
  return answers;
}

function isCredential(value: unknown): value is string | null {
  if (value === null) return true;
  return typeof value === "string" && value.length <= LIMITS.authorizationLength && AUTHORIZATION.test(value);
}

// Not imported: programs that start often would load it for nothing.
function compress(value: unknown, more: { readonly dictionary?: Buffer } = {}): Buffer {
  const { constants, zstdCompressSync } = process.getBuiltinModule("node:zlib");
  const params = { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 };
  return zstdCompressSync(JSON.stringify(value), { params, ...more });
}

const LEVEL = 12;

/** Belongs to the format: whoever reads must have the same. */
const DICTIONARY = Buffer.from(
  JSON.stringify(['"problem":null,', '"outcome":"in-step"', '"outcome":"updated"']) +
    JSON.stringify([
      [
        "",
        0,
        '{"host":"","directory":"/","roles":["Server"],"packages":[],"revision":1,"outcome":"updated","problem":null,' +
          '"autoUpdate":true,"updaterVersion":"0.1.0","releaseLog":{"epoch":1,"size":1,"head":"',
      ],
      ["", 0, '"}}'],
    ]),
);

/** The reports of the base by installation, as those that follow are: what is the same then stands at the same distance. */
function dictionaryOver({ reports }: ReportBase): Buffer {
  if (reports.size === 0) return DICTIONARY;
  const ordered = [...reports].sort(([a], [b]) => (a < b ? -1 : 1));
  const entries = ordered.map(([installation, body]) => [installation, 0, body]);
  return Buffer.concat([DICTIONARY, Buffer.from(JSON.stringify(entries))]);
}

function decompress(bytes: Buffer, bytesMax: number, more: { readonly dictionary?: Buffer } = {}): unknown {
  try {
    const { zstdDecompressSync } = process.getBuiltinModule("node:zlib");
    return parse(zstdDecompressSync(bytes, { maxOutputLength: bytesMax, ...more }));
  } catch {
    return null;
  }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}

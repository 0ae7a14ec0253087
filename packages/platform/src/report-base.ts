import { createHash } from "node:crypto";

/**
 * What a relay has already brought to a hub: for each installation the report that the hub accepted last, as the text that came.
 *
 * An installation says nearly the same each time, so the next reports are compressed over these, and cost a few bytes each, their
 * ids included. Both sides work it out by themselves from what was asked and answered, and name it by its digest: where they do
 * not have the same, the name says so before anything is read. Credentials are not part of it.
 */
export interface ReportBase {
  /** 32 hex digits; zeros: nothing. */
  readonly name: string;
  /** By installation, the one that reported last at the end. */
  readonly reports: ReadonlyMap<string, string>;
  /** Of ids and reports. */
  readonly sizeBytes: number;
}

export const BASE_NAME_BYTES = 16;
/** About 1,400 installations; of more, those that reported last are in it. */
export const BASE_BYTES_MAX = 512 * 1024;

export const EMPTY_BASE: ReportBase = {
  name: "00".repeat(BASE_NAME_BYTES),
  reports: new Map(),
  sizeBytes: 0,
};

/** The base after the hub has accepted these reports, in this order. */
export function extendBase(
  base: ReportBase,
  accepted: readonly { readonly installation: string; readonly body: string }[],
): ReportBase {
  const reports = new Map(base.reports);
  let sizeBytes = base.sizeBytes;
  const remove = (installation: string, body: string) => {
    reports.delete(installation);
    sizeBytes -= sizeOf(installation, body);
  };
  for (const { installation, body } of accepted) {
    const former = reports.get(installation);
    if (former !== undefined) remove(installation, former);
    reports.set(installation, body);
    sizeBytes += sizeOf(installation, body);
  }
  for (const [installation, body] of reports) {
    if (sizeBytes <= BASE_BYTES_MAX) break;
    remove(installation, body);
  }
  if (reports.size === 0) return EMPTY_BASE;
  const name = createHash("sha256")
    .update(JSON.stringify([...reports]))
    .digest("hex")
    .slice(0, 2 * BASE_NAME_BYTES);
  return { name, reports, sizeBytes };
}

function sizeOf(installation: string, body: string): number {
  return installation.length + Buffer.byteLength(body);
}

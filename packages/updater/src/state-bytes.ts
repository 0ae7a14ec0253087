import { hash } from "node:crypto";
import { FILES_LINE, formatInstallState, formatRow, type InstallState } from "@lockstep/core";
import type { ListDigest } from "./stat-index.ts";

/**
 * The next InstallState.config as bytes, row by row into memory that is reserved once: as one text it would stand in
 * memory three times (its rows, their sum, its bytes), and it is the largest thing that an update makes.
 */
export interface StateBytes {
  readonly bytes: Uint8Array;
  /** Everything before the list of files. */
  readonly head: string;
  readonly list: ListDigest;
}

const END = "\n]}\n";
/** What a row holds besides its path. */
const ROW_BYTES_MAX = 110;
/** A character of a path takes at most six bytes: \u0000. */
const CHARACTER_BYTES_MAX = 6;

/** The same bytes as the text of `formatInstallState`. */
export function encodeInstallState(state: InstallState): StateBytes {
  const empty = formatInstallState({ ...state, files: [] });
  const head = empty.slice(0, empty.indexOf(FILES_LINE));
  let size = Buffer.byteLength(empty);
  for (const { path } of state.files) size += path.length * CHARACTER_BYTES_MAX + ROW_BYTES_MAX;
  // Memory that nobody writes to is not there yet, so the generous bound costs nothing.
  const buffer = Buffer.allocUnsafeSlow(size);
  const listStart = buffer.write(head);
  let end = listStart + buffer.write(FILES_LINE, listStart);
  let separator = "";
  for (const file of state.files) {
    end += buffer.write(separator + formatRow(file), end);
    separator = ",\n";
  }
  end += buffer.write(END, end);
  return {
    bytes: buffer.subarray(0, end),
    head,
    list: hash("sha256", buffer.subarray(listStart, end), "buffer"),
  };
}

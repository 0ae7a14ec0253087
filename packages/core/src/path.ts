/**
 * The portable grammar of paths.
 *
 * A path of the repository is written by one machine and joined to a directory on thousands of others, as root, on
 * systems with different ideas of what a name is. Refusing `..` is not enough: `C:x`, `\\server\share`, `NUL.txt`,
 * `a.` and `name:stream` leave the directory or hit a device on Windows, and two names that differ here (case,
 * composed or decomposed letters, ß and ss) are one file there, so that the second silently replaces the first.
 *
 * So there is one grammar for every platform, and it is the strictest one: a path that is accepted means the same
 * single file everywhere. It is held against each path when it is loaded (by the loader and by the hub) and again
 * before it is applied (by the updater), because whoever owns the hub does not own the installations.
 *
 * Not promised: that a path can be created on every file system (a total length limit of 260 characters in the
 * installation's own place is the updater's to report), nor that two names look different to a human.
 */

/** Longest path in bytes of UTF-8. */
export const PATH_BYTES_MAX = 1024;
/** Longest name of a file or folder in bytes of UTF-8: what ext4, xfs, APFS and NTFS all take. */
export const SEGMENT_BYTES_MAX = 255;
/** Most names in one path. */
export const PATH_DEPTH_MAX = 64;

export type PathFaultKind =
  | "empty"
  | "malformed"
  | "absolute"
  | "drive"
  | "backslash"
  | "control"
  | "character"
  | "direction"
  | "look-alike"
  | "not-composed"
  | "empty-segment"
  | "dot-segment"
  | "trailing"
  | "device"
  | "short-name"
  | "segment-too-long"
  | "path-too-long"
  | "too-deep"
  | "own-name";

/** Why a path is refused: a word for programs, a sentence for people (without the path itself). */
export interface PathFault {
  readonly kind: PathFaultKind;
  readonly problem: string;
}

// Cc, and the two separators that end a line for some readers of logs and lists.
const CONTROL = /[\p{Cc}\u2028\u2029]/u;
const FORBIDDEN = /[<>:"|?*]/;
// Characters that turn the reading direction: `cod.exe` shown as `exe.doc`.
const DIRECTION = /[\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069\uFEFF\uFFFE\uFFFF]/u;
const DEVICE = /^(?:con|prn|aux|nul|com[1-9]|lpt[1-9]|conin\$|conout\$|clock\$)$/;
// What Windows invents for long names: `PROGRA~1`, `SOFTWA~1.VIV`. Whoever ships one reaches a file by another name.
const SHORT_NAME = /^[^.~]{1,6}~[0-9]{1,6}(?:\.[^.]{0,3})?$/;
const ASCII = /^[\x20-\x7e]*$/;

/** Names at the root of an installation that are ours, folded. `update.log` counts with everything rotated from it. */
const OWN_NAMES = new Set([
  "installstate.config",
  "update.lock",
  ".softwarerevision.viv",
  "softwarerevision.viv",
  ".lockstep",
]);
const OWN_LOG = /^update\.log(?![\p{L}\p{N}])/u;

/**
 * Holds a path against the grammar. Returns the first fault, or null when the path is acceptable: relative, names
 * separated by single `/`, Unicode NFC, valid and harmless on POSIX, Windows and macOS alike, within the limits.
 */
export function checkPath(path: string): PathFault | null {
  if (path === "") return fault("empty", "it is empty");
  // Length first: nothing below is worth doing for a megabyte.
  if (path.length > PATH_BYTES_MAX || utf8Length(path) > PATH_BYTES_MAX)
    return fault("path-too-long", `it is longer than ${PATH_BYTES_MAX} bytes`);
  if (!path.isWellFormed()) return fault("malformed", "it is not valid Unicode");
  if (CONTROL.test(path)) return fault("control", "it holds a control character");
  if (path.includes("\\")) return fault("backslash", "it holds a backslash; names are separated by /");
  if (path.startsWith("/"))
    return fault("absolute", "it is absolute; it must be relative to the base directory");
  if (/^[A-Za-z]:/.test(path)) return fault("drive", "it begins with a drive letter");
  if (FORBIDDEN.test(path)) return fault("character", 'it holds one of < > : " | ? *');
  if (DIRECTION.test(path))
    return fault("direction", "it holds an invisible character that changes how it reads");
  const ascii = ASCII.test(path);
  if (!ascii && path.normalize("NFC") !== path)
    return fault("not-composed", "it is not in Unicode normal form C");
  const segments = path.split("/");
  if (segments.length > PATH_DEPTH_MAX) return fault("too-deep", `it has more than ${PATH_DEPTH_MAX} names`);
  for (const segment of segments) {
    const found = checkSegment(segment, ascii);
    if (found !== null) return found;
  }
  const top = foldPath(segments[0] ?? "");
  if (OWN_NAMES.has(top) || OWN_LOG.test(top))
    return fault(
      "own-name",
      "it begins with a name that Lockstep keeps for itself in an installation directory",
    );
  return null;
}

function checkSegment(segment: string, ascii: boolean): PathFault | null {
  if (segment === "") return fault("empty-segment", "it holds an empty name");
  if (segment === "." || segment === "..") return fault("dot-segment", `it holds the name ${segment}`);
  if (segment.endsWith(".") || segment.endsWith(" "))
    return fault("trailing", "a name ends with a dot or a space, which Windows drops");
  if (utf8Length(segment) > SEGMENT_BYTES_MAX)
    return fault("segment-too-long", `a name is longer than ${SEGMENT_BYTES_MAX} bytes`);
  if (!ascii) {
    // Windows' narrow interfaces turn ／, ‥ and C： into /, .. and C: behind the back of whoever checked.
    const plain = segment.normalize("NFKC");
    if (/[/\\]|^\.+$|^[A-Za-z]:/.test(plain))
      return fault("look-alike", "a name holds a character that some systems turn into a separator or dots");
  }
  const stem = foldPath(segment).split(/[.:]/, 1)[0] ?? "";
  if (DEVICE.test(stem.trimEnd())) return fault("device", `the name ${segment} is a device on Windows`);
  if (SHORT_NAME.test(segment) && segment.length <= 12)
    return fault("short-name", `the name ${segment} has the form of a Windows short name`);
  return null;
}

/**
 * The key under which paths that may be one file on some file system are equal: without characters that file systems
 * ignore, compatibility forms unified (NFKC), upper and lower case unified, ß like ss. Idempotent. Only for comparing;
 * never a path.
 */
export function foldPath(path: string): string {
  if (ASCII.test(path)) return path.toLowerCase();
  let key = path;
  // One round suffices but for some hundred characters whose case mapping decomposes; four reach every fixed point.
  for (let round = 0; round < 4; round++) {
    const next = key
      .normalize("NFKC")
      .replaceAll(/\p{Default_Ignorable_Code_Point}/gu, "")
      // Down, up and down again: the capital ẞ has only a lower case, the ſ only an upper case that unifies it.
      .toLowerCase()
      .toUpperCase()
      .normalize("NFKC")
      .toLowerCase()
      // The one case mapping that depends on its neighbours.
      .replaceAll("ς", "σ")
      .normalize("NFKC");
    if (next === key) break;
    key = next;
  }
  return key;
}

/** Two paths that cannot stand in one set. `path` came later than `other`. */
export interface PathTwin {
  /** `same`: one file on some file system. `below`: `other` is a file, and `path` needs a folder of that name. */
  readonly kind: "same" | "below";
  readonly path: string;
  readonly other: string;
}

/**
 * Finds what cannot stand side by side in one set of paths: twins, and files that are also folders. Takes the paths
 * in any order; a path given twice is its own twin. Linear in the sum of their lengths. Returns all finds.
 */
export function findTwins(paths: Iterable<string>): PathTwin[] {
  const twins: PathTwin[] = [];
  const files = new Map<string, string>();
  for (const path of paths) {
    const key = foldPath(path);
    const other = files.get(key);
    if (other === undefined) files.set(key, path);
    else twins.push({ kind: "same", path, other });
  }
  // For each folder the file that stands in its way, at its own name or further up.
  const blockers = new Map<string, string | null>();
  for (const [key, path] of files) {
    const climbed: string[] = [];
    let other: string | null | undefined;
    for (let slash = key.lastIndexOf("/"); slash > 0; slash = key.lastIndexOf("/", slash - 1)) {
      const folder = key.slice(0, slash);
      other = blockers.get(folder);
      if (other !== undefined) break;
      climbed.push(folder);
      other = files.get(folder);
      if (other !== undefined) break;
    }
    for (const folder of climbed) blockers.set(folder, other ?? null);
    if (other !== undefined && other !== null) twins.push({ kind: "below", path, other });
  }
  return twins;
}

function fault(kind: PathFaultKind, problem: string): PathFault {
  return { kind, problem };
}

/** Length in bytes of UTF-8; half a surrogate pair counts three, as encoders write it. */
function utf8Length(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    if (unit < 0x800) bytes += 1;
    else if (unit >= 0xd800 && unit <= 0xdbff && isLow(text.charCodeAt(i + 1))) {
      bytes += 2;
      i++;
    } else bytes += 2;
  }
  return bytes;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}

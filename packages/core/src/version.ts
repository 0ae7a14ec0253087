/**
 * The order of module versions and what a requirement accepts.
 *
 * Products number as they like (`9.2.1`, `16.5.0-canary.3`, `2024.10`), so this is semantic versioning's order without
 * its demands: any number of parts, numbers compared as numbers, a missing part counts as 0, a suffix behind the first
 * `-` comes before the version without it, `+build` does not count. Requirements are a minimum and a maximum, both
 * inclusive; `7.1.*` as a maximum takes every 7.1, as a minimum begins with the first of them (domain 1.2).
 */
const VERSION = /^[0-9A-Za-z][0-9A-Za-z._-]*(?:\+[0-9A-Za-z._-]*)?$/;
const VERSION_LENGTH_MAX = 100;

/** Whether a text can be the version of a module: letters, digits, `.`, `-`, `_`, a `+build`; at most 100 characters. */
export function isVersion(text: string): boolean {
  return text.length <= VERSION_LENGTH_MAX && VERSION.test(text);
}

/** Whether a text can bound a requirement: a version, or one that ends in `.*`. */
export function isVersionBound(text: string): boolean {
  return isVersion(text.endsWith(".*") ? text.slice(0, -2) : text);
}

/** Orders two versions: negative when `a` is the lower one. Zero also for different spellings of one version. */
export function compareVersions(a: string, b: string): number {
  const left = split(a);
  const right = split(b);
  const main = compareParts(left.main, right.main, "0");
  if (main !== 0) return main;
  if (left.suffix === null || right.suffix === null)
    return (left.suffix === null ? 1 : 0) - (right.suffix === null ? 1 : 0);
  return compareParts(left.suffix, right.suffix, null);
}

/** What one module demands of another's version; null means no bound. */
export interface VersionRange {
  readonly min: string | null;
  readonly max: string | null;
}

/** Whether a version lies within the range, bounds included. */
export function satisfiesVersion(version: string, range: VersionRange): boolean {
  if (range.min !== null && !reaches(version, range.min)) return false;
  if (range.max === null) return true;
  if (!range.max.endsWith(".*")) return compareVersions(version, range.max) <= 0;
  const prefix = range.max.slice(0, -2);
  return hasPrefix(version, prefix) || compareVersions(version, prefix) < 0;
}

function reaches(version: string, min: string): boolean {
  if (!min.endsWith(".*")) return compareVersions(version, min) >= 0;
  const prefix = min.slice(0, -2);
  // 7.1.0-rc.1 comes before 7.1 but is one of 7.1.*.
  return hasPrefix(version, prefix) || compareVersions(version, prefix) >= 0;
}

function hasPrefix(version: string, prefix: string): boolean {
  const whole = split(version).main;
  const wanted = split(prefix).main;
  return wanted.every((part, index) => comparePart(whole[index] ?? "0", part) === 0);
}

function split(version: string): { main: string[]; suffix: string[] | null } {
  const plus = version.indexOf("+");
  const text = plus === -1 ? version : version.slice(0, plus);
  const dash = text.indexOf("-");
  return {
    main: (dash === -1 ? text : text.slice(0, dash)).split("."),
    suffix: dash === -1 ? null : text.slice(dash + 1).split("."),
  };
}

/** `missing` stands in for parts that one side lacks; null: the shorter side comes first (semver 11.4.4). */
function compareParts(a: readonly string[], b: readonly string[], missing: string | null): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const left = a[i] ?? missing;
    const right = b[i] ?? missing;
    if (left === null || right === null) return left === null ? -1 : 1;
    const order = comparePart(left, right);
    if (order !== 0) return order;
  }
  return 0;
}

function comparePart(a: string, b: string): number {
  const left = /^[0-9]+$/.test(a);
  const right = /^[0-9]+$/.test(b);
  if (left && right) {
    // By length and text: build numbers may exceed what a number holds exactly.
    const x = a.replace(/^0+(?=.)/, "");
    const y = b.replace(/^0+(?=.)/, "");
    return x.length === y.length ? order(x, y) : x.length - y.length;
  }
  // Numbers come before words (semver 11.4.3).
  return left === right ? order(a, b) : left ? -1 : 1;
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The parts of HTTP that decide what of a content is sent (RFC 9110). Pure: headers in, decisions out. */

/** Whether an Accept-Encoding names zstd, and not with a weight of 0. `*` does not count: few who send it mean zstd. */
export function acceptsZstd(accepts: string | undefined): boolean {
  return (accepts ?? "").split(",").some((item) => {
    const [name = "", ...parameters] = item.trim().toLowerCase().split(";");
    if (name.trim() !== "zstd") return false;
    return !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter.replaceAll(" ", "")));
  });
}

/** Whether an If-None-Match names the tag (weak comparison, RFC 9110 13.1.2). */
export function matchesTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false;
  if (header === tag) return true;
  return header
    .split(",")
    .map((item) => item.trim())
    .some((item) => item === "*" || item === tag || item === `W/${tag}`);
}

export type RangeDecision =
  | { readonly kind: "all" }
  /** First and last byte, both included. */
  | { readonly kind: "part"; readonly start: number; readonly end: number }
  | { readonly kind: "unsatisfiable" };

/** Reads a Range header. Several ranges at once, other units and nonsense count as none (RFC 9110 14.2). */
export function readRange(header: string | undefined, length: number): RangeDecision {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.trim() ?? "");
  if (match === null) return { kind: "all" };
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return { kind: "all" };
  if (first === "") {
    const wanted = Number(last);
    if (wanted === 0 || length === 0) return { kind: "unsatisfiable" };
    return { kind: "part", start: Math.max(0, length - wanted), end: length - 1 };
  }
  const start = Number(first);
  const end = last === "" ? length - 1 : Math.min(Number(last), length - 1);
  if (last !== "" && Number(last) < start) return { kind: "all" };
  return start >= length ? { kind: "unsatisfiable" } : { kind: "part", start, end };
}

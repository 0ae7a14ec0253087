/** JSON pointers (RFC 6901): what a step takes out of an answer for the steps behind it. */

/** Why this is none; null: it is one. */
export function pointerProblem(pointer: string): string | null {
  if (pointer !== "" && !pointer.startsWith("/")) return "must hold a JSON pointer, which begins with /";
  return /~(?![01])/.test(pointer) ? "must hold a JSON pointer, in which ~ is written ~0" : null;
}

/** The value that the pointer leads to; undefined: there is none. */
export function extractPointer(document: unknown, pointer: string): unknown {
  let value = document;
  for (const part of pointer.split("/").slice(1)) {
    const name = part.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(value)) value = /^(0|[1-9]\d*)$/.test(name) ? value[Number(name)] : undefined;
    else if (typeof value === "object" && value !== null && Object.hasOwn(value, name))
      value = (value as Record<string, unknown>)[name];
    else return undefined;
  }
  return value;
}

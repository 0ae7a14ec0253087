/**
 * JSON for PostgreSQL. What a program printed may hold what its jsonb cannot: the character 0 and halves of surrogate
 * pairs. They become the replacement character; refusing the result because of them would lose it.
 */
export function toJsonText(value: unknown): string {
  const text = JSON.stringify(value);
  if (!text.includes("\\u")) return text;
  // Escapes one by one, so that an escaped backslash before "u0000" is not taken for one. JSON.stringify writes
  // surrogates as escapes only where they stand alone.
  return text.replace(/\\(?:u0000|ud[89a-f][0-9a-f]{2}|.)/g, (found) =>
    /^\\u(?:0000|d)/.test(found) ? "\\ufffd" : found,
  );
}

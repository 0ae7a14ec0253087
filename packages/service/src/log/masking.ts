import { HIDDEN } from "../components/mask.ts";
import { cut, formatValue } from "./line.ts";

/** What is a secret by its form, whoever wrote it: credentials in addresses and in headers. */
export function maskForms(text: string): string {
  // Looked for first: nearly no text has one, and every text passes here.
  if (!text.includes("://") && !/Bearer|Basic/.test(text)) return text;
  return text
    .replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@"']*):[^\s/@"']+@/gi, `$1:${HIDDEN}@`)
    .replaceAll(/\b(Bearer|Basic) +[A-Za-z0-9+/=_~.-]{8,}/g, `$1 ${HIDDEN}`);
}

/** `Name=value` of each parameter; hidden ones read `<HIDDEN>`, long ones are cut after they were masked. */
export function formatParameters(
  parameters: Readonly<Record<string, unknown>>,
  hidden: readonly string[],
  lengthMax: number,
  mask: (text: string) => string,
): string {
  return Object.entries(parameters)
    .map(
      ([name, value]) =>
        `${name}=${hidden.includes(name) ? HIDDEN : cut(mask(formatValue(value)), lengthMax)}`,
    )
    .join(", ");
}

/**
 * HTML that cannot be forgotten to be escaped: whatever is put into the template is text, unless it came out of one.
 */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type HtmlValue = Html | string | number | null | readonly HtmlValue[];

/** html`<b>${anything}</b>` */
export function html(strings: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return new Html(
    strings.map((text, index) => text + (index < values.length ? toText(values[index]) : "")).join(""),
  );
}

function toText(value: HtmlValue | undefined): string {
  if (value instanceof Html) return value.text;
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? value.map(toText).join("") : escapeHtml(String(value));
}

/** For text and for attributes in double quotes. */
export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"'`]/g, (character) => `&#${character.charCodeAt(0)};`);
}

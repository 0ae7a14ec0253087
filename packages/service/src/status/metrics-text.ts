/**
 * The text format of Prometheus, version 0.0.4: each family once, with HELP and TYPE before its samples.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export type Labels = Readonly<Record<string, string>>;
export type MetricType = "counter" | "gauge";

export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

export class MetricsText {
  readonly #families: string[] = [];
  readonly #names = new Set<string>();

  /** A family with a sample for each value; one without samples is left out. Throws TypeError on a name that is none. */
  add(
    type: MetricType,
    name: string,
    help: string,
    samples: readonly { readonly value: number; readonly labels?: Labels }[],
  ): void {
    if (!NAME.test(name) || this.#names.has(name)) throw new TypeError(`${name} is no new name of a metric`);
    if ((type === "counter") !== name.endsWith("_total"))
      throw new TypeError(`${name}: counters end in _total`);
    this.#names.add(name);
    if (samples.length === 0) return;
    const lines = samples.map(
      ({ value, labels = {} }) => `${name}${formatLabels(labels)} ${formatNumber(value)}\n`,
    );
    this.#families.push(`# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join("")}`);
  }

  toString(): string {
    return this.#families.join("");
  }
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    if (!LABEL.test(name) || name.startsWith("__")) throw new TypeError(`${name} is no name of a label`);
    return `${name}="${escapeLabel(value)}"`;
  });
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

const escapeHelp = (text: string) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
const escapeLabel = (text: string) => escapeHelp(text).replaceAll('"', '\\"');

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

import {
  type ConfigValues,
  type Parameter,
  parametersOf,
  TABLE_NAMES,
  TABLES,
  type TableName,
} from "./parameters.ts";

/** The parameters of one table of a file, by name; what is left out has its default. */
export interface WrittenTable {
  readonly name: TableName;
  readonly values: Readonly<Record<string, unknown>>;
}

export interface WriteOptions {
  /** Also parameters that are not given, as comments with their defaults, and what each means. */
  readonly complete: boolean;
}

/** Writes a configuration file, in the order of the reference. */
export function writeConfig(tables: readonly WrittenTable[], { complete }: WriteOptions): string {
  const order = Object.keys(TABLES);
  const sorted = [...tables].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  return sorted
    .map(({ name, values }) => {
      const { many, required } = TABLES[name];
      const given = Object.values(values).some((value) => value !== null && value !== undefined);
      // A table of comments alone would count as given.
      const title = `${given || many || required ? "" : "# "}${many ? `[[${name}]]` : `[${name}]`}`;
      const lines = parametersOf(name).flatMap(([key, parameter]) =>
        formatParameter(key, parameter, values[key], complete),
      );
      return `${[...(complete ? [`# ${TABLES[name].description}`] : []), title, ...lines].join("\n")}\n`;
    })
    .join("\n");
}

function formatParameter(key: string, parameter: Parameter, value: unknown, complete: boolean): string[] {
  const given = value !== undefined && value !== null && value !== "";
  if (!complete) return given ? [`${key} = ${formatToml(value)}`] : [];
  const unit = parameter.unit === undefined ? "" : ` (${parameter.unit})`;
  const effect = parameter.effect === "restart" ? " Restart." : "";
  const about = `# ${parameter.description}${unit}${effect}`;
  if (given) return [about, `${key} = ${formatToml(value)}`];
  if (parameter.required === true) return [about, `# ${key} = (required)`];
  const fallback = parameter.defaultText ?? formatToml(parameter.default);
  return [about, `# ${key} = ${fallback}${parameter.defaultText === undefined ? "" : " (default)"}`];
}

/** A value in TOML. Texts in JSON are texts in TOML but for one character. */
function formatToml(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(formatToml).join(", ")}]`;
  if (typeof value === "object" && value !== null)
    return `{ ${Object.entries(value)
      .map(([name, each]) => `${name} = ${formatToml(each)}`)
      .join(", ")} }`;
  return typeof value === "string"
    ? JSON.stringify(value.toWellFormed()).replaceAll("\u007f", "\\u007f")
    : String(value);
}

/** The tables of a file that says everything, with its defaults. */
export function tablesOf(values: ConfigValues): WrittenTable[] {
  return TABLE_NAMES.flatMap((name): WrittenTable[] => {
    const table: unknown = values[name];
    if (Array.isArray(table)) return table.map((row) => ({ name, values: row }));
    // Without a password in a file or in the environment there is no such table.
    const { PasswordFile, PasswordEnvironment } = values.HTTPAuthentication;
    if (name === "HTTPAuthentication" && PasswordFile === null && PasswordEnvironment === null) return [];
    return [{ name, values: values[name] as WrittenTable["values"] }];
  });
}

/** One of each table, with nothing but what is known without a person. */
export function templateTables(): WrittenTable[] {
  return TABLE_NAMES.map((name) => ({ name, values: {} }));
}

import type { XmlElement } from "./read-xml.ts";

/** What a module of the original file is for. */
export type ModuleKind =
  | "provider"
  | "destination"
  | "log"
  | "event-log"
  | "service"
  | "authentication"
  | "gate"
  | "dispatcher"
  | "connection"
  | "plugin"
  | "unknown";

/** A group of values that belong together: one module of the service, or one entry of it. */
export interface OldModule {
  readonly kind: ModuleKind;
  /** `jobdestinations/JobServiceDestination` */
  readonly path: string;
  /** By name in lower case. */
  readonly values: ReadonlyMap<string, string>;
}

/**
 * Finds the modules in a file of the original kind. The file was written by several tools and versions in several forms
 * (`<category name="…">` with `<value name="…">text</value>`, `<add key="…" value="…"/>`, elements that are named after
 * the parameter), so this looks for what all have in common: elements that hold named values.
 */
export function findModules(root: XmlElement): OldModule[] {
  return walk(root, []);
}

function walk(element: XmlElement, parents: readonly string[]): OldModule[] {
  const values = new Map<string, string>();
  const nested: OldModule[] = [];
  const path = [...parents, nameOf(element)];
  for (const child of element.children)
    if (child.children.length > 0 || Object.keys(child.attributes).some((name) => !OF_VALUES.includes(name)))
      nested.push(...walk(child, path));
    else values.set(nameOf(child).toLowerCase(), textOf(child));
  // A module may also be written as one element with attributes.
  for (const [name, value] of Object.entries(element.attributes))
    if (!NAMING.includes(name) && !name.startsWith("xmlns")) values.set(name, value);
  if (values.size === 0) return nested;
  const shown = path.slice(1).join("/") || path.join("/");
  return [{ kind: kindOf(path, values), path: shown, values }, ...nested];
}

const NAMING = ["name", "key", "id"];
/** Attributes that an element for a single value has. */
const OF_VALUES = [...NAMING, "value", "type"];

function nameOf({ tag, attributes }: XmlElement): string {
  return attributes.name ?? attributes.key ?? tag;
}

function textOf({ attributes, text }: XmlElement): string {
  return (attributes.value ?? text).trim();
}

const KINDS: readonly (readonly [RegExp, ModuleKind])[] = [
  [/jobservicedestination|jobdestination/, "destination"],
  [/jobprovider/, "provider"],
  [/jobgate/, "gate"],
  [/filelogwriter/, "log"],
  [/eventloglogwriter|eventlog/, "event-log"],
  [/logwriter/, "log"],
  [/httpauth|authentication/, "authentication"],
  [/dispatcher/, "dispatcher"],
  [/plugin/, "plugin"],
  [/connection/, "connection"],
  [/serviceconfiguration|configuration/, "service"],
];

/** By the module's own type first, then by where it stands, from the inside out. */
function kindOf(path: readonly string[], values: ReadonlyMap<string, string>): ModuleKind {
  const words = [values.get("type"), values.get("class"), values.get("module"), ...[...path].reverse()];
  for (const word of words) {
    const kind = KINDS.find(([pattern]) => pattern.test(word?.toLowerCase() ?? ""))?.[1];
    if (kind !== undefined) return kind;
  }
  return values.has("queue") ? "destination" : "unknown";
}

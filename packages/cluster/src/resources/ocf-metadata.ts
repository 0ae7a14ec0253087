/** What an OCF resource agent says of itself, as far as it matters here. */
export interface OcfMetadata {
  readonly parameters: ReadonlyMap<string, OcfParameter>;
  readonly actions: readonly OcfAction[];
}

export interface OcfParameter {
  readonly isRequired: boolean;
  readonly type: string;
  readonly default: string | null;
}

export interface OcfAction {
  readonly name: string;
  /** How long the agent's authors advise to wait at least; null: they do not say. */
  readonly timeoutMs: number | null;
  /** Of a monitor: how deep it looks. */
  readonly depth: number;
}

interface Tag {
  readonly name: string;
  readonly isEnd: boolean;
  readonly attributes: ReadonlyMap<string, string>;
}

/** Reads what the action `meta-data` printed. Null: it is no description of a resource agent. */
export function parseOcfMetadata(xml: string): OcfMetadata | null {
  const parameters = new Map<string, OcfParameter>();
  const actions: OcfAction[] = [];
  let isAgent = false;
  let open: string | null = null;
  for (const { name, isEnd, attributes } of tagsOf(xml)) {
    if (name === "resource-agent") isAgent = true;
    if (name === "parameter") {
      open = isEnd ? null : (attributes.get("name") ?? null);
      const isRequired = /^(1|true|yes)$/i.test(attributes.get("required") ?? "");
      if (open !== null) parameters.set(open, { isRequired, type: "string", default: null });
    }
    const parameter = open === null ? undefined : parameters.get(open);
    if (name === "content" && !isEnd && open !== null && parameter !== undefined)
      parameters.set(open, {
        ...parameter,
        type: attributes.get("type") ?? "string",
        default: attributes.get("default") ?? null,
      });
    const action = attributes.get("name");
    if (name === "action" && action !== undefined)
      actions.push({
        name: action,
        timeoutMs: parseTime(attributes.get("timeout")),
        depth: Number(attributes.get("depth") ?? 0) || 0,
      });
  }
  return isAgent ? { parameters, actions } : null;
}

/** A comment and quoted text hold no tags; texts between tags are for people. */
function* tagsOf(xml: string): Generator<Tag> {
  const tags =
    /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<(\/?)([A-Za-z][\w.-]*)((?:\s+[\w.:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*\/?>/g;
  for (const [, slash, name, rest] of xml.matchAll(tags)) {
    if (name === undefined) continue;
    const attributes = new Map<string, string>();
    for (const [, key, double, single] of (rest ?? "").matchAll(/([\w.:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g))
      if (key !== undefined) attributes.set(key, decode(double ?? single ?? ""));
    yield { name, isEnd: slash === "/", attributes };
  }
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

const decode = (text: string) =>
  text.replace(/&(lt|gt|amp|quot|apos);/g, (whole, name: string) => ENTITIES[name] ?? whole);

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  sec: 1_000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
};

/** `20s`, `20`, `2min`, in milliseconds. A bare number counts seconds. */
function parseTime(text: string | undefined): number | null {
  const match = /^\s*(\d+)\s*([a-z]*)\s*$/i.exec(text ?? "");
  const unit = UNITS[(match?.[2] || "s").toLowerCase()];
  return match === null || unit === undefined ? null : Number(match[1]) * unit;
}

/** The advised time for an action; of several monitors the one of that depth. Null: the agent does not say. */
export function advisedMs(metadata: OcfMetadata | null, action: string, depth = 0): number | null {
  const found = metadata?.actions.filter((each) => each.name === action) ?? [];
  return (found.find((each) => each.depth === depth) ?? found[0])?.timeoutMs ?? null;
}

/** The deepest look that the agent says it can take; 0: none beside the plain one. */
export function deepestMonitor(metadata: OcfMetadata | null): number {
  const depths = metadata?.actions.filter(({ name }) => name === "monitor").map(({ depth }) => depth) ?? [];
  return Math.max(0, ...depths);
}

/** What is wrong with parameters, by what the agent says of them. */
export function findParameterFaults(
  metadata: OcfMetadata,
  given: ReadonlyMap<string, string>,
): readonly string[] {
  const faults: string[] = [];
  for (const [name, { isRequired, default: fallback }] of metadata.parameters)
    if (isRequired && !given.get(name) && !fallback) faults.push(`parameters: ${name} is missing`);
  for (const [name, value] of given) {
    const parameter = metadata.parameters.get(name);
    if (parameter === undefined)
      faults.push(
        `parameters: the agent has no ${name}; it has ${[...metadata.parameters.keys()].join(", ") || "none"}`,
      );
    else if (parameter.type === "integer" && !/^[+-]?\d+$/.test(value))
      faults.push(`parameters: ${name} must be a whole number, and is ${value}`);
    else if (parameter.type === "boolean" && !/^(1|0|yes|no|true|false|on|off|ja|nein)$/i.test(value))
      faults.push(`parameters: ${name} must be true or false, and is ${value}`);
  }
  return faults;
}

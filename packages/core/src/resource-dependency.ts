/**
 * What a resource needs before it can be online: AND of OR groups, as administrators of Windows clusters write it:
 * `([address 1] or [address 2]) and [disk]`. Other shapes and cycles are refused.
 *
 * An OR group is fulfilled by one provider that is online, and broken only when none is. So a name may hang on either of
 * two addresses in two subnets.
 */
export type Dependency = readonly (readonly string[])[];

/** Resources by name, with what each needs. */
export type DependencyGraph = ReadonlyMap<string, Dependency>;

export type DependencyText =
  | { readonly ok: true; readonly dependency: Dependency }
  | { readonly ok: false; readonly at: number; readonly problem: string };

interface Token {
  readonly at: number;
  readonly kind: "name" | "and" | "or" | "(" | ")" | "end" | "stray";
  readonly text: string;
}

const TOKEN = /\s*(?:\[([^[\]]*)\]|(and|or)\b|([()])|(\S))/giy;

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match !== null; match = TOKEN.exec(text)) {
    const [whole, name, word, bracket, stray = ""] = match;
    const at = match.index + whole.length - whole.trimStart().length;
    if (name !== undefined) tokens.push({ at, kind: "name", text: name.trim() });
    else if (word !== undefined)
      tokens.push({ at, kind: word.toLowerCase() === "and" ? "and" : "or", text: word });
    else if (bracket !== undefined) tokens.push({ at, kind: bracket === "(" ? "(" : ")", text: bracket });
    else tokens.push({ at, kind: "stray", text: stray });
  }
  tokens.push({ at: text.length, kind: "end", text: "the end" });
  return tokens;
}

class Refusal {
  readonly at: number;
  readonly problem: string;
  constructor({ at }: Token, problem: string) {
    this.at = at;
    this.problem = problem;
  }
}

/** Reads an expression. Empty text: no dependency. A faulty one says where (a character from 0) and what is wrong. */
export function parseDependency(text: string): DependencyText {
  const tokens = tokenize(text);
  if (tokens.length === 1) return { ok: true, dependency: [] };
  try {
    return { ok: true, dependency: readExpression(tokens) };
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    return { ok: false, at: refusal.at, problem: refusal.problem };
  }
}

function readExpression(tokens: Token[]): Dependency {
  const groups: (readonly string[])[] = [];
  for (;;) {
    const first = tokens[0];
    const group = first?.kind === "(" ? readBracketed(tokens) : [readName(tokens)];
    // A single OR group needs no brackets around it.
    if (groups.length === 0 && first?.kind === "name" && tokens[0]?.kind === "or") {
      const alone = readAlternatives(tokens, group);
      const next = take(tokens);
      if (next.kind !== "end") throw new Refusal(next, "put brackets around names that are joined by or");
      return [alone];
    }
    groups.push(group);
    const next = take(tokens);
    if (next.kind === "end") return groups;
    if (next.kind === "or") throw new Refusal(next, "put brackets around names that are joined by or");
    if (next.kind !== "and") throw new Refusal(next, `expected and, found ${next.text}`);
  }
}

function readBracketed(tokens: Token[]): string[] {
  take(tokens);
  const names = readAlternatives(tokens, [readName(tokens)]);
  const next = take(tokens);
  if (next.kind === "and")
    throw new Refusal(next, "only names joined by or stand in brackets: an AND of OR groups");
  if (next.kind !== ")") throw new Refusal(next, `expected a closing bracket, found ${next.text}`);
  return names;
}

function readAlternatives(tokens: Token[], names: string[]): string[] {
  while (tokens[0]?.kind === "or") {
    take(tokens);
    names.push(readName(tokens));
  }
  return names;
}

function readName(tokens: Token[]): string {
  const token = take(tokens);
  if (token.kind !== "name") throw new Refusal(token, `expected a name like [disk], found ${token.text}`);
  if (token.text === "") throw new Refusal(token, "the name is empty");
  return token.text;
}

function take(tokens: Token[]): Token {
  const token = tokens[0];
  if (token === undefined) throw new Error("read beyond the end");
  if (token.kind !== "end") tokens.shift();
  return token;
}

/** The text that parses back to this. */
export function formatDependency(dependency: Dependency): string {
  return dependency
    .map((names) => names.map((name) => `[${name}]`))
    .map((names) => (names.length === 1 ? names.join("") : `(${names.join(" or ")})`))
    .join(" and ");
}

/** Whether all that is needed is online. */
export const isFulfilled = (dependency: Dependency, isOnline: (name: string) => boolean): boolean =>
  dependency.every((names) => names.some(isOnline));

/** Every resource that this one names, once each. */
export const providersOf = (dependency: Dependency): readonly string[] => [...new Set(dependency.flat())];

export interface DependencyFault {
  readonly resource: string;
  readonly problem: string;
}

/** Names that nobody has, and circles. */
export function findDependencyFaults(graph: DependencyGraph): DependencyFault[] {
  const unknown = [...graph].flatMap(([resource, dependency]) =>
    providersOf(dependency)
      .filter((name) => !graph.has(name))
      .map((name) => ({ resource, problem: `needs [${name}], which is no resource of this virtual server` })),
  );
  const circle = findCircle(graph);
  const [first] = circle ?? [];
  if (circle === null || first === undefined) return unknown;
  const way = [...circle, first].map((name) => `[${name}]`).join(" needs ");
  return [...unknown, { resource: first, problem: `needs itself: ${way}` }];
}

function findCircle(graph: DependencyGraph): string[] | null {
  const done = new Set<string>();
  const visit = (name: string, way: readonly string[]): string[] | null => {
    if (done.has(name)) return null;
    const at = way.indexOf(name);
    if (at >= 0) return way.slice(at);
    for (const provider of providersOf(graph.get(name) ?? [])) {
      const circle = visit(provider, [...way, name]);
      if (circle !== null) return circle;
    }
    done.add(name);
    return null;
  };
  for (const name of graph.keys()) {
    const circle = visit(name, []);
    if (circle !== null) return circle;
  }
  return null;
}

/**
 * The order in which resources come online; going offline is the reverse. Providers stand before whoever needs them,
 * also those of an OR group: they are tried before. Among equals the order of the graph holds. The graph has no faults.
 */
export function onlineOrder(graph: DependencyGraph): string[] {
  const order: string[] = [];
  const done = new Set<string>();
  const visit = (name: string): void => {
    if (done.has(name)) return;
    done.add(name);
    for (const provider of providersOf(graph.get(name) ?? [])) visit(provider);
    order.push(name);
  };
  for (const name of graph.keys()) visit(name);
  return order;
}

import { LockstepError } from "@lockstep/protocol/wire";

/** An element with what it holds. */
export interface XmlElement {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly text: string;
  readonly children: readonly XmlElement[];
}

const BYTES_MAX = 1024 * 1024;
const DEPTH_MAX = 40;
const FOUND_CHARACTERS_MAX = 200;

/**
 * Reads an XML text into elements. No document type is accepted at all: what is not declared cannot be expanded, so a
 * small file cannot become a huge one or fetch another. Only the five entities that XML itself has, and numbers of
 * characters, are understood.
 *
 * Throws SERVICE_IMPORT_REFUSED.
 */
export async function readXml(text: string, fileName: string): Promise<XmlElement> {
  if (text.length > BYTES_MAX) throw refused(fileName, `at most ${BYTES_MAX} characters`, `${text.length}`);
  if (/<!(?:DOCTYPE|ENTITY)/i.test(text))
    throw refused(fileName, "no document type and no entities", "a declaration");
  // A service never reads XML, and should not carry the parser in its memory.
  const { XMLParser, XMLValidator } = await import("fast-xml-parser");
  const verdict = XMLValidator.validate(text, { allowBooleanAttributes: false });
  if (verdict !== true) {
    const { msg, line, col } = verdict.err;
    throw refused(fileName, "well-formed XML", `${msg} (line ${line}, column ${col})`);
  }
  const parser = new XMLParser({
    preserveOrder: true,
    ignoreAttributes: false,
    attributeNamePrefix: "",
    processEntities: false,
    htmlEntities: false,
    parseTagValue: false,
    parseAttributeValue: false,
    trimValues: true,
    ignoreDeclaration: true,
    ignorePiTags: true,
    removeNSPrefix: true,
    maxNestedTags: DEPTH_MAX,
  });
  let document: unknown;
  try {
    document = parser.parse(text);
  } catch (cause) {
    throw refused(fileName, "well-formed XML", cause instanceof Error ? cause.message : String(cause));
  }
  const [root] = toElements(document, 0);
  if (root === undefined) throw refused(fileName, "an element", "nothing");
  return root;
}

function refused(fileName: string, expected: string, found: string): LockstepError {
  return new LockstepError("SERVICE_IMPORT_REFUSED", `${fileName} cannot be imported`, {
    expected,
    // The parser repeats what it stumbled over, however long that is.
    found: found.length > FOUND_CHARACTERS_MAX ? `${found.slice(0, FOUND_CHARACTERS_MAX)}…` : found,
    hint: "Give the Jobservice.cfg that the original service reads.",
  });
}

/** The parser's ordered form: a list of objects, each with one member that names the element, and `:@` with attributes. */
function toElements(nodes: unknown, depth: number): XmlElement[] {
  if (!Array.isArray(nodes) || depth > DEPTH_MAX) return [];
  return nodes.flatMap((node: unknown) => {
    if (typeof node !== "object" || node === null) return [];
    const tag = Object.keys(node).find((key) => key !== ":@" && key !== "#text");
    if (tag === undefined) return [];
    const inside: unknown = Reflect.get(node, tag);
    const attributes: unknown = Reflect.get(node, ":@");
    return [
      {
        tag,
        attributes: Object.fromEntries(
          Object.entries(typeof attributes === "object" && attributes !== null ? attributes : {}).map(
            ([name, value]) => [name.toLowerCase(), decode(String(value))],
          ),
        ),
        text: textOf(inside),
        children: toElements(inside, depth + 1),
      },
    ];
  });
}

function textOf(nodes: unknown): string {
  if (!Array.isArray(nodes)) return "";
  return nodes
    .map((node: unknown) =>
      typeof node === "object" && node !== null && "#text" in node ? decode(String(node["#text"])) : "",
    )
    .join("");
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function decode(text: string): string {
  return text.replaceAll(
    /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(lt|gt|amp|quot|apos));/gi,
    (all, decimal, hex, name) => {
      if (name !== undefined) return ENTITIES[String(name).toLowerCase()] ?? all;
      const point = decimal === undefined ? Number.parseInt(hex, 16) : Number(decimal);
      return point > 0 && point <= 0x10_ffff ? String.fromCodePoint(point) : all;
    },
  );
}

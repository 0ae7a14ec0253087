import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { isLockstepError } from "@lockstep/protocol";
import { readXml, type XmlElement } from "./read-xml.ts";

/**
 * B10: configuration in XML that reads a file, calls somebody, or becomes huge. The control is the same reader without what
 * it refuses at its door: the document type is carried out, as XML 1.0 has it, before it reads.
 */
const SECRET = "planted-in-a-file";
const LAUGHS = 8;

/** Documents by what they try. `{file}` and `{declarations}` are addresses of files with the secret. */
const FILES: Readonly<Record<string, string>> = {
  "external entity": `<!DOCTYPE c [<!ENTITY e SYSTEM "{file}">]><c>&e;</c>`,
  "external entity, public": `<!DOCTYPE c [<!ENTITY e PUBLIC "-//x" "{file}">]><c>&e;</c>`,
  "external entity by an entity": `<!DOCTYPE c [<!ENTITY e SYSTEM "{file}"><!ENTITY f "&e;">]><c>&f;</c>`,
  "external entity among others": `<!DOCTYPE c [<!ENTITY a "x">\n<!ENTITY e\n SYSTEM '{file}'>]><c><d/>&a;&e;</c>`,
  "external declarations": `<!DOCTYPE c SYSTEM "{declarations}"><c>&e;</c>`,
  "external declarations, public": `<!DOCTYPE c PUBLIC "-//x" "{declarations}"><c>&e;</c>`,
  "parameter entity": `<!DOCTYPE c [<!ENTITY % p SYSTEM "{declarations}">%p;]><c>&e;</c>`,
  "behind a declaration": `<?xml version="1.0"?>\n<!DOCTYPE c [<!ENTITY e SYSTEM "{file}">]><c>&e;</c>`,
  "behind a remark": `<!-- <c/> --><!DOCTYPE c [<!ENTITY e SYSTEM "{file}">]><c>&e;</c>`,
  "behind an instruction": `<?x y?><!DOCTYPE c [<!ENTITY e SYSTEM "{file}">]><c>&e;</c>`,
};
const NETWORK = Object.fromEntries(
  Object.entries(FILES).map(([name, text]) => [
    `${name}, by network`,
    text
      .replaceAll("{file}", "http://127.0.0.1:9/file")
      .replaceAll("{declarations}", "http://127.0.0.1:9/dtd"),
  ]),
);
const HUGE: Readonly<Record<string, string>> = {
  "a billion laughs": `<!DOCTYPE c [<!ENTITY e0 "ha">${Array.from(
    { length: LAUGHS },
    (_, n) => `<!ENTITY e${n + 1} "${`&e${n};`.repeat(10)}">`,
  ).join("")}]><c>&e${LAUGHS};</c>`,
  "a long entity, often": `<!DOCTYPE c [<!ENTITY e "${"x".repeat(20_000)}">]><c>${"&e;".repeat(20_000)}</c>`,
  "a long entity by a second": `<!DOCTYPE c [<!ENTITY f "${"x".repeat(9_000)}"><!ENTITY e "${"&f;".repeat(9_000)}">]><c>&e;&e;</c>`,
  "in an attribute": `<!DOCTYPE c [<!ENTITY f "${"x".repeat(9_000)}"><!ENTITY e "${"&f;".repeat(9_000)}">]><c a="&e;">&e;</c>`,
};
/** Refused, or read as the text that it is; none of it needs a document type to be carried out. */
const OTHERS: Readonly<Record<string, string>> = {
  "itself for ever": `<!DOCTYPE c [<!ENTITY a "&b;"><!ENTITY b "&a;">]><c>&a;</c>`,
  "in small letters": `<!doctype c [<!entity e "x">]><c>&e;</c>`,
  "an entity without a document type": `<c><!ENTITY e "x">&e;</c>`,
  "an instruction of a style sheet": `<?xml-stylesheet href="http://127.0.0.1:9/x"?><c/>`,
  inclusion: `<c xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="{file}" parse="text"/></c>`,
  "inclusion, by network": `<c xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="http://127.0.0.1:9/x"/></c>`,
  "a schema": `<c xmlns:s="http://www.w3.org/2001/XMLSchema-instance" s:schemaLocation="x {file}"/>`,
  "a thousand deep": "<c>".repeat(1_000) + "</c>".repeat(1_000),
  "a hundred thousand deep": "<c>".repeat(100_000),
  "a million characters and more": `<c>${"x".repeat(1_100_000)}</c>`,
};

/** As a processor of XML 1.0 does it (4.4): entities are fetched and put in their place, until `charactersMax`. */
function carryOut(text: string, charactersMax: number): string {
  const entities = new Map<string, string>();
  const fetchText = (address: string) =>
    address.startsWith("file:") ? readFileSync(fileURLToPath(address), "utf8") : "";
  const declare = (declarations: string) => {
    const pattern = /<!ENTITY\s+(%\s+)?(\w+)\s+(?:(?:SYSTEM|PUBLIC\s+"[^"]*")\s+)?(["'])(.*?)\3\s*>/gs;
    for (const [whole, parameter, name = "", , value = ""] of declarations.matchAll(pattern)) {
      const external = /\s(SYSTEM|PUBLIC)\s/.test(whole);
      if (parameter === undefined) entities.set(name, external ? fetchText(value) : value);
      else if (external) declare(fetchText(value));
    }
  };
  const type = /<!DOCTYPE\s+\w+\s*(?:(?:SYSTEM|PUBLIC\s+"[^"]*")\s+"([^"]*)")?\s*(?:\[(.*)\])?\s*>/s.exec(
    text,
  );
  if (type === null) return text;
  if (type[1] !== undefined) declare(fetchText(type[1]));
  declare(type[2] ?? "");
  const body = text.replace(type[0], "");
  const expand = (part: string, room: number): string => {
    let out = "";
    for (const piece of part.split(/(&\w+;)/)) {
      if (out.length > room) break;
      const value = /^&\w+;$/.test(piece) ? entities.get(piece.slice(1, -1)) : undefined;
      out += value === undefined ? piece : expand(value, room - out.length);
    }
    return out;
  };
  return expand(body, charactersMax);
}

function plant(t: TestContext): (text: string) => string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-xml-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const [file, declarations] = [join(directory, "file"), join(directory, "declarations")];
  writeFileSync(file, SECRET);
  writeFileSync(declarations, `<!ENTITY e SYSTEM "${pathToFileURL(file)}">`);
  return (text) =>
    text
      .replaceAll("{file}", pathToFileURL(file).href)
      .replaceAll("{declarations}", pathToFileURL(declarations).href);
}

const everything = (element: XmlElement): string =>
  [element.text, ...Object.values(element.attributes), ...element.children.map(everything)].join(" ");

const read = async (text: string) =>
  await readXml(text, "x").then(everything, (error: unknown) => {
    if (!isLockstepError(error, "SERVICE_IMPORT_REFUSED")) throw error;
    return null;
  });

test("B10: no document reads a file, calls anybody or becomes more than it is", async (t) => {
  const placed = plant(t);
  const called = t.mock.method(globalThis, "fetch");
  const all = { ...FILES, ...NETWORK, ...HUGE, ...OTHERS };
  assert.ok(Object.keys(all).length >= 30, `${Object.keys(all).length} documents`);
  for (const [name, text] of Object.entries(all)) {
    const found = await read(placed(text));
    assert.equal(found?.includes(SECRET) ?? false, false, name);
    assert.ok((found ?? "").length <= text.length, name);
    if (!(name in OTHERS)) assert.equal(found, null, name);
  }
  assert.equal(called.mock.callCount(), 0);
});

test("B10: the control: where a document type is carried out, the files come in and the laughs are loud", async (t) => {
  const placed = plant(t);
  for (const [name, text] of Object.entries(FILES))
    assert.equal((await read(carryOut(placed(text), 100_000)))?.includes(SECRET), true, name);
  for (const [name, text] of Object.entries(HUGE)) {
    const loud = carryOut(text, 4_000_000);
    assert.ok(loud.length > 3_000_000 && loud.length > 4 * text.length, `${name}: ${loud.length}`);
  }
});

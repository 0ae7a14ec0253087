import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  type Parameter,
  parametersOf,
  TABLE_NAMES,
  TABLES,
} from "../../packages/service/src/config/parameters.ts";

const document = readFileSync(join(import.meta.dirname, "../../docs/reference/service-config.md"), "utf8");

/** The rows of a table as the document has to have them; printed where they differ, to be pasted. */
function rowsOf(name: (typeof TABLE_NAMES)[number]): string {
  const rows = parametersOf(name).map(
    ([key, parameter]) =>
      `| \`${key}\` | ${typeText(parameter)} | ${defaultText(parameter)} | ${parameter.effect} | ${parameter.description} |`,
  );
  return [
    "| Parameter | Type | Default | Effective | Meaning |",
    "| --- | --- | --- | --- | --- |",
    ...rows,
  ].join("\n");
}

function typeText({ type, unit, min, max, choices }: Parameter): string {
  if (choices !== undefined) return choices.map((each) => `\`"${each}"\``).join(", ");
  const words = {
    url: "address",
    paths: "list of paths",
    variables: "table of texts",
    boolean: "true or false",
  };
  const word = type in words ? words[type as keyof typeof words] : type;
  const isNumber = type === "integer" || type === "number";
  const range = isNumber ? ` ${min ?? 0} to ${max ?? "any"}` : "";
  return `${word}${range}${unit === undefined ? "" : ` ${unit}`}`;
}

function defaultText(parameter: Parameter): string {
  if (parameter.required === true) return "**required**";
  return parameter.defaultText ?? `\`${JSON.stringify(parameter.default)}\``;
}

test("the reference of the configuration has the rows of the table of parameters", () => {
  for (const name of TABLE_NAMES) {
    const title = TABLES[name].many ? `## [[${name}]]` : `## [${name}]`;
    const section = document.split(/^(?=## )/m).find((each) => each.startsWith(`${title}\n`));
    assert.ok(section, `no section ${title}`);
    assert.ok(section.includes(TABLES[name].description), `${title} must say: ${TABLES[name].description}`);
    const table = section.match(/^\|[\s\S]*?(?=\n(?!\|))/m)?.[0];
    assert.equal(table, rowsOf(name), `${title}: paste\n${rowsOf(name)}\n`);
  }
});

test("the reference names no table that the file cannot have", () => {
  const titles = [...document.matchAll(/^## \[+(\w+)\]+$/gm)].map((match) => match[1]);
  assert.deepEqual(titles, TABLE_NAMES);
});

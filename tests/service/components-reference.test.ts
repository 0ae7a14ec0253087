/**
 * Holds the tables of docs/reference/components.md against the code. With LOCKSTEP_WRITE_DOCS=1 it writes them instead.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { INSIDE_ONLY } from "@lockstep/core";
import { BUILT_IN_NAMES, findComponent } from "../../packages/service/src/components/catalog.ts";
import type { Component, ParameterDeclaration } from "../../packages/service/src/components/types.ts";

const file = join(import.meta.dirname, "../../docs/reference/components.md");

function tasksOf({ name, tasks }: Component): string {
  return Object.entries(tasks)
    .map(([task, { description, execution, parameters }]) => {
      const rows = Object.entries(parameters).map(
        ([parameter, declaration]) =>
          `| \`${parameter}\` | ${typeText(declaration)} | ${defaultText(declaration)} | ${declaration.description.replaceAll("|", "\\|")} |`,
      );
      return [
        `### ${name}.${task}`,
        "",
        `${description} Runs: ${execution}.`,
        "",
        "| Parameter | Type | Default | Meaning |",
        "| --- | --- | --- | --- |",
        ...rows,
        "",
      ].join("\n");
    })
    .join("\n");
}

function typeText({ type, choices, minimum, maximum, hidden }: ParameterDeclaration): string {
  const range =
    minimum === undefined && maximum === undefined ? "" : ` ${minimum ?? "any"} to ${maximum ?? "any"}`;
  const words = choices === undefined ? `${type}${range}` : choices.map((each) => `\`${each}\``).join(", ");
  return `${words}${hidden === true ? ", hidden" : ""}`;
}

function defaultText(declaration: ParameterDeclaration): string {
  if (declaration.required === true) return "**required**";
  return declaration.default === undefined ? "" : `\`${JSON.stringify(declaration.default)}\``;
}

test("the reference has the tables that the code declares, for every component", async () => {
  let document = readFileSync(file, "utf8");
  for (const name of BUILT_IN_NAMES) {
    const expected = tasksOf(await findComponent(name));
    const [start, end] = [`<!-- tasks of ${name} -->\n`, "<!-- end -->"];
    const at = document.indexOf(start) + start.length;
    assert.ok(at >= start.length, `no place for the tasks of ${name}`);
    const until = document.indexOf(end, at);
    if (process.env.LOCKSTEP_WRITE_DOCS === "1") {
      document = `${document.slice(0, at)}${expected}${document.slice(until)}`;
      writeFileSync(file, document);
    } else
      assert.equal(
        document.slice(at, until),
        expected,
        `the tables of ${name}: run with LOCKSTEP_WRITE_DOCS=1`,
      );
  }
});

test("templates know which built-in components run inside the service alone", async () => {
  const found: string[] = [];
  for (const name of BUILT_IN_NAMES) {
    const places = Object.values((await findComponent(name)).tasks).map(({ execution }) => execution);
    if (places.includes("internal")) found.push(name);
    assert.ok(places.every((place) => place === (found.includes(name) ? "internal" : "either")));
  }
  assert.deepEqual(found, INSIDE_ONLY);
});

test("every parameter says what it is in a sentence", async () => {
  for (const name of BUILT_IN_NAMES)
    for (const [task, { parameters, description }] of Object.entries((await findComponent(name)).tasks)) {
      assert.match(description, /^[A-Z].*\.$/, `${name}.${task}`);
      for (const [parameter, { description: text }] of Object.entries(parameters))
        assert.match(text, /^[A-Z`].*[.`]$/, `${name}.${task} ${parameter}: ${text}`);
    }
});

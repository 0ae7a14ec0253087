import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { checkPath } from "@lockstep/core";
import { realDisk } from "@lockstep/platform";
import { MetadataStore } from "@lockstep/trust";
import { HOSTILE_NAMES, TWINS } from "../hostile/known-names.ts";

/** A21: a role of a signed document whose name, taken for a file's, would lead somewhere else. */
test("A21: no name of a role leads out of where metadata is kept, and no two share a file", async (t) => {
  const base = mkdtempSync(join(tmpdir(), "lockstep-roles-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const directory = join(base, "trust");
  const store = new MetadataStore(realDisk, directory);
  const names = [
    ...new Set([...HOSTILE_NAMES, ...TWINS.flat(), "Root", "root.json", "clock", "../trust/root"]),
  ];
  // What a file's name cannot tell apart is bytes: as text on the wire they are one name already.
  const told = names.filter((name) => name.isWellFormed());
  assert.ok(told.length >= 500, `${told.length} names`);
  await store.write("root", Buffer.from("the root"));
  for (const name of told) await store.write(name, Buffer.from(name));
  assert.deepEqual(readdirSync(base), ["trust"]);
  const files = readdirSync(directory);
  assert.equal(files.length, told.length + 1);
  for (const file of files) assert.equal(checkPath(file), null, file);
  for (const name of told) assert.equal(Buffer.from(store.read(name) ?? []).toString(), name);
  assert.equal(Buffer.from(store.read("root") ?? []).toString(), "the root");
  // The control: a store that takes the name as it is would write elsewhere, or over another role.
  const naive = told.map((name) => resolve(directory, `${name}.json`));
  assert.ok(naive.filter((place) => !place.startsWith(`${directory}/`)).length > 50);
  assert.ok(new Set(naive).size < naive.length);
  assert.ok(naive.includes(join(directory, "root.json")));
});

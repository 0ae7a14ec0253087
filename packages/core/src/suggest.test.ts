import assert from "node:assert/strict";
import test from "node:test";
import { suggest } from "./suggest.ts";

test("a slip or another case finds the name that was meant, the nearest of several", () => {
  assert.equal(suggest("Imprt", ["Export", "Import"]), "Import");
  assert.equal(suggest("OUTPUTFILE", ["OutPutFile", "OutPutFiles"]), "OutPutFile");
  assert.equal(suggest("queu", ["queue"]), "queue");
});

test("what is only alike in parts, or short, suggests nothing", () => {
  assert.equal(suggest("Fetch", ["Import", "Tell"]), null);
  assert.equal(suggest("ab", ["cd"]), null);
  assert.equal(suggest("Import", []), null);
  assert.equal(suggest("Slots", ["Hosts"], 1), null);
});

test("a very long list is not searched", () => {
  const names = Array.from({ length: 501 }, (_, index) => `step ${index}`);
  assert.equal(suggest("stepp 7", names), null);
  assert.notEqual(suggest("stepp 7", names.slice(0, 500)), null);
});

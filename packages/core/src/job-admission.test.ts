import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { type AdmissionRequest, type AdmittedServer, decideAdmission } from "./job-admission.ts";

const server: AdmittedServer = {
  instance: "one",
  former: ["old"],
  machine: "m",
  term: 3,
  sequence: 9,
  answered: 7,
  alive: true,
  held: 2,
};
const request: AdmissionRequest = { instance: "one", machine: "m", sequence: 10, answered: 9, term: null };
const admit = (more: Partial<AdmissionRequest>, at: Partial<AdmittedServer> = {}) =>
  decideAdmission({ ...server, ...at }, { ...request, ...more }).kind;

suite("admission", () => {
  test("the current instance goes on; late requests are told from overtaken ones", () => {
    assert.equal(decideAdmission(null, request).kind, "takeover");
    assert.equal(admit({}), "current");
    assert.equal(admit({ sequence: 9 }), "current");
    assert.equal(admit({ sequence: 8 }), "overtaken");
    assert.equal(admit({ sequence: 7 }), "stale");
  });

  test("a new instance takes over on the same machine, after the lease, with a higher term, or from one without steps", () => {
    assert.equal(admit({ instance: "two" }), "takeover");
    assert.equal(admit({ instance: "two", machine: "n" }), "taken");
    assert.equal(admit({ instance: "two", machine: "n" }, { alive: false }), "takeover");
    assert.equal(admit({ instance: "two", machine: "n" }, { held: 0 }), "takeover");
    assert.equal(admit({ instance: "two", machine: "n", term: 4 }), "takeover");
    assert.equal(admit({ instance: "two", machine: "n", term: 3 }), "taken");
  });

  test("who was replaced, or has an old term, cannot come back", () => {
    assert.equal(admit({ instance: "old" }), "replaced");
    assert.equal(admit({ instance: "old", term: 4 }), "replaced");
    assert.equal(admit({ term: 2 }), "term-stale");
    assert.equal(admit({ instance: "two", term: 2 }, { alive: false }), "term-stale");
  });
});

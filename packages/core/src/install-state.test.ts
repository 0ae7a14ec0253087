import assert from "node:assert/strict";
import { test } from "node:test";
import { formatInstallState, type InstallState, parseInstallState } from "./index.ts";

const state: InstallState = {
  id: "8a4c1f5e-0000-4000-8000-000000000001",
  hub: { url: "https://hub:8700", caFile: "/etc/ca.pem", tokenFile: null },
  roles: ["Server", "Server/JobServer"],
  rolesChosen: ["Server/JobServer"],
  packages: [],
  packagesChosen: [],
  settings: { autoUpdate: false, edits: "keep-and-report" },
  manifests: { "role:Server/JobServer": "b".repeat(64), "role:Server": "a".repeat(64) },
  files: [
    { path: 'a "quoted" ü', size: 1, sha256: "1".repeat(64), mode: 0o755, backup: true },
    { path: "b", size: 0, sha256: "2".repeat(64), mode: 0o644, backup: false },
  ],
};

test("what was written is read back, one file a line", () => {
  const text = formatInstallState(state);
  const parsed = parseInstallState(text);
  assert.deepEqual(parsed.kind === "state" && parsed.state, {
    ...state,
    manifests: { "role:Server": "a".repeat(64), "role:Server/JobServer": "b".repeat(64) },
  });
  assert.equal(text.split("\n").filter((line) => line.startsWith('["')).length, 2);
  assert.equal(formatInstallState({ ...state, files: [] }).includes('"files":[\n\n]}'), true);
  assert.equal(parseInstallState(formatInstallState({ ...state, files: [] })).kind, "state");
});

test("a damaged file names the first fault, wherever it is cut or altered", () => {
  const text = formatInstallState(state);
  for (let length = 0; length < text.length - 1; length++)
    assert.equal(parseInstallState(text.slice(0, length)).kind, "fault", `cut at ${length}`);
  const fault = (from: string, to: string) => {
    const parsed = parseInstallState(text.replace(from, to));
    return parsed.kind === "fault" ? parsed.where : "none";
  };
  assert.equal(fault("lockstep-install-state/1", "lockstep-install-state/9"), "format");
  assert.equal(fault('"autoUpdate":false', '"autoUpdate":0'), "settings.autoUpdate");
  assert.equal(fault("keep-and-report", "whatever"), "settings.edits");
  assert.equal(fault('["b",', '["A",'), "files");
  assert.equal(fault(`${"2".repeat(64)}",420`, `${"2".repeat(64)}",4200`), "files");
});

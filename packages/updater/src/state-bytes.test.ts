import assert from "node:assert/strict";
import { test } from "node:test";
import { formatInstallState, type InstallState } from "@lockstep/core";
import { digestList } from "./stat-index.ts";
import { encodeInstallState } from "./state-bytes.ts";

const state = (paths: readonly string[]): InstallState => ({
  id: "8a4c1f5e-0000-4000-8000-000000000001",
  hub: { url: "http://höst", caFile: null, tokenFile: null },
  roles: ["A"],
  rolesChosen: ["A"],
  packages: [],
  packagesChosen: [],
  settings: { autoUpdate: true, edits: "replace" },
  manifests: {},
  files: paths.map((path, size) => ({
    path,
    size,
    sha256: "0".repeat(64),
    mode: 0o755,
    backup: size % 2 === 0,
  })),
});

test("the bytes are those of the text, and so is the digest of the list", () => {
  for (const paths of [[], ["a"], ["a", "ü", "\u0001\u0002", '"\\"', "日本", "\u{1f600}"]]) {
    const text = formatInstallState(state(paths));
    const { bytes, head, list } = encodeInstallState(state(paths));
    assert.equal(Buffer.from(bytes).toString(), text);
    assert.ok(text.startsWith(head));
    assert.deepEqual(list, digestList(text));
  }
});

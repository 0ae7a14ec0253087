import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { fileAttributes, formatTarget } from "@lockstep/core";
import { parseModuleFile } from "@lockstep/protocol/module-file";
import { compareInstallation, compareReleases } from "../../scripts/demo/comparison.ts";
import { describeModule, expectedFiles, SERVER_ROLE, WORKSTATION_ROLE } from "../../scripts/demo/product.ts";
import { parseSpec } from "../../scripts/demo/published-package.ts";

function tree(t: TestContext, files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-demo-test-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(join(directory, path, ".."), { recursive: true });
    writeFileSync(join(directory, path), text);
    chmodSync(join(directory, path), 0o644);
  }
  return directory;
}

const OURS = {
  "InstallState.config": "{}",
  ".softwarerevision.viv": "1\n",
  "update.log": "",
  ".lockstep/staging/x": "",
};

test("the comparison sees what is missing, different, too much and wrongly executable", async (t) => {
  const published = tree(t, { "a.js": "a", "lib/b.js": "b", "c.js": "c" });
  const expected = new Map(["a.js", "lib/b.js", "c.js"].map((path) => [path, join(published, path)]));
  const good = tree(t, { "a.js": "a", "lib/b.js": "b", "c.js": "c", ...OURS });
  assert.deepEqual(await compareInstallation(good, expected), { files: 3, bytes: 3, faults: [] });

  const bad = tree(t, { "a.js": "A", "c.js": "c", "lib/d.js": "d", ...OURS });
  chmodSync(join(bad, "c.js"), 0o755);
  assert.deepEqual([...(await compareInstallation(bad, expected)).faults].sort(), [
    "a.js differs from the published file",
    "c.js has mode 755, published is 644",
    "lib/b.js is missing",
    "lib/d.js does not belong there",
  ]);
});

test("two releases are compared by their content", async (t) => {
  const before = tree(t, { same: "s", changed: "1", gone: "g" });
  const after = tree(t, { same: "s", changed: "12", added: "123" });
  const files = (directory: string, names: string[]) =>
    new Map(names.map((name) => [name, join(directory, name)]));
  assert.deepEqual(
    await compareReleases(
      files(before, ["same", "changed", "gone"]),
      files(after, ["same", "changed", "added"]),
    ),
    { added: 1, changed: 1, removed: 1, equal: 1, bytes: 5 },
  );
});

test("only one exact version of a package is a release", () => {
  assert.deepEqual(parseSpec("next@16.4.5"), { name: "next", version: "16.4.5" });
  assert.deepEqual(parseSpec("@scope/name@1.0.0-rc.1"), { name: "@scope/name", version: "1.0.0-rc.1" });
  for (const spec of ["next", "next@latest", "next@^16", "../next@1", "next@1 --flag", "@1.0.0", ""])
    assert.equal(parseSpec(spec), null, spec);
});

test("the module description and the check cut the product in the same way", async (t) => {
  const paths = [
    "package.json",
    "index.js",
    "index.d.ts",
    "lib/a.js",
    "lib/a.js.map",
    "README.md",
    "docs/x/y.md",
    "m.d.mts",
  ];
  const directory = tree(t, Object.fromEntries(paths.map((path) => [path, path])));
  const product = { name: "@x/y", version: "1.2.3", directory, files: 0, bytes: 0, cached: true };
  const module = parseModuleFile(describeModule(product));
  const subdirectory = module.roles.flatMap((role) => role.packages)[0]?.subdirectory ?? "";
  const placed = (roles: string[]) =>
    paths.flatMap((path) => {
      const targets = (fileAttributes(module.files, path).targets ?? []).map(formatTarget);
      if (roles.some((role) => targets.includes(`role:${role}`))) return [path];
      return roles.includes(WORKSTATION_ROLE) && targets.includes("package:Y/Documentation")
        ? [`${subdirectory}/${path}`]
        : [];
    });
  assert.deepEqual(
    [...(await expectedFiles("server", product)).keys()].sort(),
    placed(["Server", SERVER_ROLE]).sort(),
  );
  assert.deepEqual(
    [...(await expectedFiles("workstation", product)).keys()].sort(),
    placed(["Client", WORKSTATION_ROLE]).sort(),
  );
  assert.equal(
    placed(["Server", SERVER_ROLE]).length + placed(["Client", WORKSTATION_ROLE]).length,
    paths.length + 1,
  );
});

import assert from "node:assert/strict";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { byPath } from "@lockstep/core";
import { isLockstepError, type LockstepError } from "@lockstep/protocol";
import { install, update } from "@lockstep/updater";
import { documentOf, type ErrorDocument, lockstep, temporaryDirectory } from "../cli/lockstep.ts";
import { makeWorld, put, treeOf, type World } from "../updater/world.ts";
import { HOSTILE_NAMES, TWINS } from "./known-names.ts";

const ROLE = { kind: "role", name: "Server" } as const;
/** Everything that a hub can write into a manifest. The empty name is none even by its form. */
const NAMES = HOSTILE_NAMES.filter((name) => name !== "");

/** Makes the hub serve a manifest with these paths as its next software revision, whatever they are. */
function serve(world: World, paths: readonly string[]): void {
  const content = Buffer.from("hostile");
  const number = world.hub.publish({ harmless: { content: "harmless", targets: ["role:Server"] } });
  const sha256 = world.hub.add(content);
  const entries = [...new Set(paths)]
    .map((path) => ({ path, size: content.length, sha256, mode: 0o777, backup: false }))
    .sort(byPath);
  const manifests = world.hub.document(number).manifests as unknown[];
  manifests.splice(0, manifests.length, world.hub.addManifest({ target: ROLE, entries }));
}

async function refusal(work: Promise<unknown>): Promise<LockstepError> {
  const error = await work.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  assert.ok(isLockstepError(error), String(error));
  return error;
}

/** All that stands below a directory, ours included: an escape inside would show here, one outside in the parent. */
function everything(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" }).sort();
}

test("a hostile hub cannot make the updater write any of the known names", async (t) => {
  const world = await makeWorld(t);
  // In portions, because a run names only so many faults.
  const portion = 50;
  for (let start = 0; start < NAMES.length; start += portion) {
    const names = NAMES.slice(start, start + portion);
    serve(world, ["harmless", ...names]);
    const directory = join(world.root, `fresh-${start}`);
    const error = await refusal(install(directory, world.installOptions(["Server"])));
    assert.equal(error.code, "PATH_REFUSED");
    const told = new Set(error.faults.map((fault) => fault.where));
    assert.deepEqual(
      names.filter((name) => !told.has(name)),
      [],
    );
    assert.equal(existsSync(join(directory, "harmless")), false);
    assert.equal(existsSync(join(directory, "InstallState.config")), false);
  }
  assert.ok(readdirSync(world.root).every((name) => name.startsWith("fresh-")));
});

test("each kind of name is refused by itself as well, and the installation stays as it is", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ "app/file": { content: "1", targets: ["role:Server"] } });
  const directory = join(world.root, "installation");
  await install(directory, world.installOptions(["Server"]));
  const before = everything(directory);
  const names = [
    "../up",
    "/etc/lockstep-test",
    "C:x",
    "a\\..\\..\\x",
    "nul.txt",
    "x.",
    "x:y",
    "a\u0000b",
    "\ud800",
    "e\u0301",
  ];
  for (const name of [
    ...names,
    ".lockstep/commit.json",
    "InstallState.config",
    "x".repeat(256),
    "PROGRA~1",
    "‥/x",
  ]) {
    serve(world, ["app/file", name]);
    const error = await refusal(update(directory, world.options()));
    assert.equal(error.code, "PATH_REFUSED", JSON.stringify(name));
    assert.deepEqual(treeOf(directory), { "app/file": "1" }, JSON.stringify(name));
  }
  // What a run leaves of its own (log, cached lists) is all that may have come.
  const came = everything(directory).filter((path) => !before.includes(path));
  assert.deepEqual(
    came.filter((path) => !/^(\.lockstep|update\.log)/.test(path)),
    [],
  );
  assert.deepEqual(readdirSync(world.root), ["installation"]);
});

test("twins in one manifest are refused", async (t) => {
  const world = await makeWorld(t);
  for (const [index, pair] of TWINS.entries()) {
    serve(world, pair);
    const error = await refusal(install(join(world.root, `twin-${index}`), world.installOptions(["Server"])));
    assert.match(error.code, /^PATH_REFUSED$|^INSTALLATION_CONFLICT$/, pair.join(" and "));
  }
});

test("a link that stands in the way is never written through", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ keep: { content: "1", targets: ["role:Server"] } });
  const directory = join(world.root, "installation");
  await install(directory, world.installOptions(["Server"]));
  const outside = join(world.root, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "victim"), "untouched");
  symlinkSync(outside, join(directory, "folder"));
  symlinkSync(join(outside, "victim"), join(directory, "file"));
  world.hub.publish({
    keep: { content: "1", targets: ["role:Server"] },
    "folder/planted": { content: "planted", targets: ["role:Server"] },
    file: { content: "mine", targets: ["role:Server"] },
  });
  await update(directory, world.options()).catch((error: unknown) => {
    if (!isLockstepError(error)) throw error;
  });
  assert.deepEqual(readdirSync(outside), ["victim"]);
  assert.equal(readFileSync(join(outside, "victim"), "utf8"), "untouched");
});

test("a manifest that lies about sizes or hashes installs nothing", async (t) => {
  const world = await makeWorld(t);
  world.hub.publish({ app: { content: "as promised", targets: ["role:Server"] } });
  world.hub.faults.corrupt = (_, bytes) => Buffer.concat([bytes, Buffer.from("and more")]);
  const directory = join(world.root, "installation");
  const error = await refusal(install(directory, world.installOptions(["Server"])));
  assert.match(error.code, /^CONTENT_MISMATCH$|^HUB_ANSWER_INVALID$/);
  assert.equal(existsSync(join(directory, "app")), false);
});

test("an export trusts a hub no more than the updater does", async (t) => {
  const world = await makeWorld(t);
  const target = join(temporaryDirectory(t), "target");
  serve(world, ["harmless", ...NAMES]);
  const run = (...more: string[]) =>
    lockstep(["files", "export", target, "--role", "Server", "--json", ...more], {
      env: { LOCKSTEP_HUB: world.hub.url },
    });
  const refused = await run();
  assert.equal(refused.status, 3, refused.stderr);
  assert.equal(documentOf<ErrorDocument>(refused).error.code, "PATH_REFUSED");
  assert.equal(existsSync(join(target, "harmless")), false);

  world.hub.publish({ app: { content: "as promised", targets: ["role:Server"] } });
  put(target, "app", "former");
  world.hub.faults.corrupt = (_, bytes) => Buffer.from(bytes.toString().toUpperCase());
  const corrupt = await run();
  assert.equal(corrupt.status, 3, corrupt.stderr);
  assert.equal(documentOf<ErrorDocument>(corrupt).error.code, "CONTENT_MISMATCH");
  assert.deepEqual(readdirSync(target), ["app"], "nothing half-written is left");
  assert.equal(readFileSync(join(target, "app"), "utf8"), "former");
  assert.ok(lstatSync(join(target, "app")).isFile());
});

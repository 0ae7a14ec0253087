import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { formatManifest } from "@lockstep/protocol";
import { MetadataStore, readSignedRevision, TrustClient } from "@lockstep/trust";
import { install, update } from "@lockstep/updater";
import { makeWorld, treeOf, type World } from "../updater/world.ts";
import { outcome, pinned, refresh, TRUST } from "./client-world.ts";
import { SmallRepository } from "./small-repository.ts";

/**
 * A11: a release lists its parts, and an installation resolves nothing. What it does not know in a list is no reason to
 * look for it, and none to leave it out: the whole release is refused, well signed as it is.
 */
const targets = ["role:A"];

/** Serves this text as the manifest of the newest software revision, signed like any other. */
function serve(world: World, text: string): void {
  const [ref] = world.hub.document(2).manifests;
  const sha256 = createHash("sha256").update(text).digest("hex");
  Object.assign(ref ?? {}, { sha256, size: Buffer.byteLength(text) });
  world.hub.faults.refuse = {
    status: 200,
    body: text,
    times: 1,
    match: new RegExp(`manifests/sha256/${sha256}`),
  };
}

test("A11: a manifest with a part that nobody knows is refused as a whole", async (t) => {
  const entries = ["file", "second"].map((path) => {
    const content = path === "file" ? "two" : "2";
    const sha256 = createHash("sha256").update(content).digest("hex");
    return { path, size: content.length, sha256, mode: 0o644, backup: false };
  });
  const good = formatManifest({ target: { kind: "role", name: "A" }, entries });
  const [head = "", first = "", second = ""] = good.split("\n");
  const unknown: Readonly<Record<string, string>> = {
    "a file with something more": [head, first, second.replace(/\]$/, ',"setuid"]'), ""].join("\n"),
    "a dependency among the files": [
      head,
      first,
      '{"requires":"B/helper","from":"http://elsewhere/"}',
      "",
    ].join("\n"),
    "a row of another kind": [head, first, '["link","second","/etc/passwd"]', ""].join("\n"),
    "rights that no file has": [head, first, second.replace(/,420,/, ",2541,"), ""].join("\n"),
    "another form of list": [head.replace("manifest/1", "manifest/2"), first, second, ""].join("\n"),
    "a content that is none": [head, first, second.replace(/[0-9a-f]{64}/, "latest"), ""].join("\n"),
  };
  // The control is the same list without the part.
  for (const [what, text] of Object.entries({ ...unknown, "the control": good })) {
    assert.equal(text === good, what === "the control", what);
    const world = await makeWorld(t);
    world.hub.publish({ file: { content: "one", targets } });
    const directory = join(world.root, "a");
    await install(directory, world.installOptions(["A"]));
    world.hub.publish({ file: { content: "two", targets }, second: { content: "2", targets } });
    // Before anybody asked, so that it is signed like this.
    serve(world, text);
    world.hub.requests.length = 0;
    const said = await outcome(() => update(directory, world.options()));
    assert.equal(said, text === good ? "accepted" : "MANIFEST_INVALID", what);
    assert.deepEqual(treeOf(directory), text === good ? { file: "two", second: "2" } : { file: "one" }, what);
    // Nobody went to look for it either.
    const fetched = world.hub.requests.filter((line) => /files|bundle|steps/.test(line));
    assert.equal(fetched.length > 0, text === good, what);
  }
});

test("A11: signed targets with a part that nobody knows are refused as a whole", async () => {
  const hub = await SmallRepository.make();
  const place = await pinned(hub);
  const read = async () => {
    await refresh(place, hub.mirror());
    const trust = await TrustClient.open(new MetadataStore(place.disk, TRUST), place.clock);
    await trust.loadKept();
    assert.ok(trust.targets !== null);
    return readSignedRevision(trust.targets);
  };
  assert.equal(await outcome(read), "accepted");
  await hub.publishRevision(2);
  await hub.alter("2.targets.json", "targets", (signed) => {
    const files = signed.targets as Record<string, unknown>;
    files["helper.so"] = Object.values(files)[0];
  });
  await hub.publishSnapshot();
  assert.equal(await outcome(read), "TRUST_REFUSED");
  await hub.publishRevision(3);
  assert.equal(await outcome(read), "accepted");
});

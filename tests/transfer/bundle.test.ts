import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startTestHub, type TestHub } from "../cli/hub.ts";
import {
  documentOf,
  type ErrorDocument,
  ended,
  lockstep,
  start,
  temporaryDirectory,
} from "../cli/lockstep.ts";

/** A relay that serves what a bundle brought, for as long as the test. */
async function carriedRelay(t: { after(work: () => Promise<void>): void }, data: string): Promise<string> {
  const child = start(["relay", "--carried", "--data", data, "--listen", "127.0.0.1:0"]);
  const end = ended(child);
  t.after(async () => {
    child.kill("SIGTERM");
    assert.equal((await end).status, 0);
  });
  return await new Promise<string>((found, failed) => {
    child.stdout?.on("data", (text: string) => {
      const ready = /^ready (\S+)\n/.exec(text);
      if (ready?.[1] !== undefined) found(ready[1]);
    });
    end.then(({ stderr }) => failed(new Error(stderr)), failed);
  });
}

test("a revision travels on a disk: to a site without a hub, and to a single installation", async (t) => {
  const directory = temporaryDirectory(t);
  const hub: TestHub = await startTestHub(directory);
  t.after(() => hub.stop());
  const done = async (args: string[], env: Record<string, string> = {}) => {
    const end = await lockstep(args, { env });
    assert.equal(end.status, 0, end.stderr);
    return end;
  };
  const refused = async (args: string[], code: string) => {
    const end = await lockstep([...args, "--json"]);
    assert.equal(end.status, 3, end.stderr);
    assert.equal(documentOf<ErrorDocument>(end).error.code, code);
  };
  const source = join(directory, "source");
  mkdirSync(join(source, "app"), { recursive: true });
  writeFileSync(join(source, "app/same.bin"), randomBytes(400_000));
  const lines = (salt: string) => Array.from({ length: 20_000 }, (_, n) => `${n * 7919} ${salt}`).join("\n");
  const load = async (version: string, salt: string) => {
    writeFileSync(join(source, "app/large.txt"), `${lines("same")}\n${salt}`);
    writeFileSync(join(source, "app/small.txt"), salt);
    const options = ["--module", "M", "--version", version, "--assign", "app/**=Server", "--yes"];
    await done(["load", source, ...options], hub.env);
  };
  const small = (place: string) => readFileSync(join(place, "app/small.txt"), "utf8");
  const site = join(directory, "site");
  const [first, second, delta] = ["1", "2", "d"].map((name) => join(directory, `${name}.bundle`)) as [
    string,
    string,
    string,
  ];

  await load("1", "one");
  await done(["bundle", "export", first], hub.env);
  await done(["bundle", "import", first, "--data", site]);
  const url = await carriedRelay(t, site);
  const place = join(directory, "i");
  await done(["install", place, "--role", "Server", "--hub", url]);
  assert.equal(small(place), "one");
  const lonely = join(directory, "j");
  await done(["install", lonely, "--role", "Server", "--hub", hub.url]);

  await load("2", "two");
  await done(["bundle", "export", second], hub.env);
  await done(["bundle", "export", delta, "--from", "1"], hub.env);
  assert.ok(readFileSync(delta).length < readFileSync(second).length);

  // Cut, altered, older: nothing changes.
  const state = () => readFileSync(join(site, "carried.json"), "utf8");
  const before = state();
  const cut = join(directory, "cut.bundle");
  const forged = readFileSync(second);
  // In a content that the site has not got yet: digest, encoding and two lengths stand before it.
  const at = forged.indexOf(createHash("sha256").update("two").digest()) + 32 + 1 + 8 + 8;
  forged[at] = (forged[at] ?? 0) ^ 1;
  writeFileSync(cut, forged);
  await refused(["bundle", "import", cut, "--data", site], "CONTENT_MISMATCH");
  writeFileSync(cut, readFileSync(second));
  truncateSync(cut, readFileSync(second).length - 1_000);
  await refused(["bundle", "import", cut, "--data", site], "BUNDLE_INVALID");
  const resigned = readFileSync(second, "latin1");
  const name = /"2\.targets\.json":"([^"]+)"/.exec(resigned)?.[1] ?? "";
  const targets = Buffer.from(name, "base64").toString("utf8");
  const other = Buffer.from(targets.replace('"revision":2', '"revision":3')).toString("base64");
  writeFileSync(cut, resigned.replace(name, other), "latin1");
  await refused(["bundle", "import", cut, "--data", site], "TRUST_REFUSED");
  assert.equal(state(), before);
  assert.equal((await lockstep(["check", place])).status, 0, "the site is where it was");
  await refused(["update", lonely, "--from", cut], "TRUST_REFUSED");
  assert.equal(small(lonely), "one");

  // A part that was left by an export that broke off is gone on with.
  writeFileSync(`${cut}.part`, readFileSync(second).subarray(0, readFileSync(second).length - 500));
  const again = documentOf<{ resumed: number; contents: number }>(
    await done(["bundle", "export", cut, "--json"], hub.env),
  );
  assert.ok(again.resumed > 0 && again.resumed < again.contents, JSON.stringify(again));
  assert.deepEqual(readFileSync(cut), readFileSync(second));
  assert.ok(!existsSync(`${cut}.part`));

  await done(["bundle", "import", second, "--data", site]);
  // The relay that serves sees it within a moment.
  while ((await lockstep(["check", place])).status !== 10);
  await done(["update", place]);
  assert.equal(small(place), "two");
  await refused(["bundle", "import", first, "--data", site], "TRUST_ROLLED_BACK");
  await done(["update", lonely, "--from", delta]);
  assert.equal(small(lonely), "two");
  assert.equal((await lockstep(["check", lonely])).status, 0, "in step with its own hub");
});

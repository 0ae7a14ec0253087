import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HubClient } from "@lockstep/client";
import { silentLogger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";
import { startRelay } from "@lockstep/relay";
import { configure, install } from "@lockstep/updater";
import { makeCertificate } from "../support/certificate.ts";
import { makeWorld } from "../updater/world.ts";

/** Nothing listens there: whoever gets as far as connecting says so. */
const NOBODY = "https://127.0.0.1:1";

async function files(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-authorities-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const { certFile, keyFile } = await makeCertificate(directory);
  const pem = readFileSync(certFile, "utf8");
  const file = (name: string, content: string | Buffer) => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };
  mkdirSync(join(directory, "folder"));
  const other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  return {
    good: [certFile, file("two", `Authority\n${pem}${pem}`), file("windows", pem.replaceAll("\n", "\r\n"))],
    bad: [
      [join(directory, "missing"), /cannot be read$/, /ENOENT/],
      [join(directory, "folder"), /cannot be read$/, /EISDIR/],
      [file("empty", ""), /holds no certificate$/, /^an empty file$/],
      [file("text", "see the wiki\n"), /holds no certificate$/, /^other text$/],
      [keyFile, /holds no certificate$/, /^private key$/],
      [file("der", new X509Certificate(pem).raw), /holds no certificate$/, /^binary data$/],
      [file("cut", pem + pem.slice(0, 300)), /is cut off$/, /^1 whole of 2 that begin in it$/],
      [file("other", pem + other), /something else in the place of a certificate$/, /^number 2$/],
    ] as [string, RegExp, RegExp][],
  };
}

/** The error of a look at a certificate file, with its path and what was found there. */
function refusal(path: string, problem: RegExp, found: RegExp): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof LockstepError);
    assert.equal(error.code, "USAGE", error.message);
    assert.ok(error.message.startsWith(`the certificate file ${path} `), error.message);
    assert.match(error.message, problem);
    assert.match(String(error.found), found);
    assert.match(String(error.expected), /PEM/);
    assert.notEqual(error.hint, undefined);
    return true;
  };
}

test("a file of authorities is looked at before anybody is asked, and is named when it is none", async (t) => {
  const { good, bad } = await files(t);
  const ask = async (caFile: string) => {
    const client = new HubClient({ url: NOBODY, caFile });
    try {
      await client.currentSemaphore();
    } finally {
      await client.close();
    }
  };
  for (const path of good) await assert.rejects(ask(path), { code: "HUB_UNREACHABLE" });
  for (const [path, problem, found] of bad) await assert.rejects(ask(path), refusal(path, problem, found));
});

test("a relay does not start, and an installation does not note, what holds no authority", async (t) => {
  const { good, bad } = await files(t);
  const world = await makeWorld(t);
  world.hub.publish({ a: { content: "a", targets: ["role:A"] } });
  const directory = join(world.root, "i");
  await install(directory, world.installOptions(["A"]));
  for (const [path, problem, found] of bad) {
    const relay = startRelay({
      dataDirectory: join(world.root, "relay"),
      hub: { url: NOBODY, caFile: path },
      listen: "127.0.0.1:0",
      log: silentLogger,
      tls: null,
    });
    await assert.rejects(relay, refusal(path, problem, found));
    await assert.rejects(
      configure(directory, { caFile: path }, world.options()),
      refusal(path, problem, found),
    );
  }
  const noted = async (change: { caFile?: string }) =>
    (await configure(directory, change, world.options())).hub.caFile;
  assert.equal(await noted({}), null);
  for (const path of good) assert.equal(await noted({ caFile: path }), path);
});

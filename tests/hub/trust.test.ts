import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { HubClient, openDocument } from "@lockstep/client";
import { silentLogger, systemClock } from "@lockstep/platform";
import { MetadataCopy, MirrorSource, readChanges, type SignedRevision, TrustClient } from "@lockstep/trust";
import { TrustPublisher } from "../../packages/hub/src/trust/publisher.ts";
import { renewDue } from "../../packages/hub/src/trust/upkeep.ts";
import { type TestServer, usePostgres } from "../support/postgres.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { ask } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

/** What a hub signs, and what becomes of it when rows are changed by hand. */
async function verified(hub: TestHub, clock = systemClock): Promise<SignedRevision> {
  const client = new HubClient({ url: hub.url, token: hub.token });
  try {
    const store = new MetadataCopy(null);
    await TrustClient.pin(store, await client.signedDocument("root.json"));
    const trust = await TrustClient.open(store, clock);
    const open = (document: string, from: number, signal: AbortSignal) =>
      openDocument(client.connection, `/v1/trust/${document}`, from, signal);
    await trust.refresh(new MirrorSource([{ name: hub.url, open }], systemClock));
    return trust.currentRevision();
  } finally {
    await client.close();
  }
}

function suite(server: TestServer): void {
  test("every software revision is signed as it becomes the current one", async (t) => {
    const hub = await startTestHub(t, server);
    for (const revision of [1, 2, 3]) {
      assert.equal(
        await loadAndSettle(hub, release({ a: `${revision}` }, { version: `${revision}` })),
        revision,
      );
      const { document, log } = await verified(hub);
      assert.deepEqual([document.number, log.size], [revision, revision]);
      const shown = (await ask(hub, "GET", `/v1/revisions/${revision}`)).json();
      assert.deepEqual(shown.manifests, document.manifests);
      assert.equal(shown.digest, document.digest);
    }
    // Numbered documents may be kept by any cache; what changes is asked for anew.
    const cached = (await ask(hub, "GET", "/v1/trust/1.targets.json")).headers;
    assert.match(String(cached["cache-control"]), /immutable/);
    assert.equal((await ask(hub, "GET", "/v1/trust/timestamp.json")).headers["cache-control"], "no-cache");
    for (const name of ["0.root.json", "99.targets.json", "1.timestamp.json", "..%2Ftoken", "x"])
      assert.equal((await ask(hub, "GET", `/v1/trust/${name}`)).status, 404, name);
  });

  test("installations and relays are told what is signed, with what everybody asks for", async (t) => {
    const hub = await startTestHub(t, server);
    const said = async (headers: Record<string, string>) =>
      (await ask(hub, "GET", "/v1/revision", { headers })).headers["lockstep-signed"];
    const installation = { "lockstep-installation": "a" };
    assert.equal(await said(installation), undefined, "nothing is signed yet");
    for (const revision of [1, 2]) {
      await loadAndSettle(hub, release({ a: `${revision}` }, { version: `${revision}` }));
      const { digest } = (await verified(hub)).document;
      const mark = `1.${revision}.${digest.slice(0, 16)}`;
      assert.equal(await said(installation), mark);
      assert.equal(await said({ "lockstep-relay": "1" }), mark);
      assert.equal(await said({ ...installation, "if-none-match": `"${revision}"` }), mark);
      // The control: others have no use for it.
      assert.equal(await said({}), undefined);
    }
    // A new root comes without a new revision.
    await hub.pool.query(
      `insert into trust_document (role, version, bytes, expires_at)
       select role, 2, bytes, expires_at from trust_document where role = 'root'`,
    );
    await hub.pool.query("select pg_notify('lockstep_revision', '2')");
    while (!String(await said(installation)).startsWith("2.2.")) await systemClock.sleep(20);
  });

  test("what is new to somebody comes in one answer, and is the same as one by one", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    await loadAndSettle(hub, release({ a: "2" }, { version: "2" }));
    const ahead = async (query: string) =>
      readChanges((await ask(hub, "GET", `/v1/trust/changes?${query}`)).body);
    const all = await ahead("root=1&snapshot=0&targets=0&epoch=1&log=0");
    assert.deepEqual([...all.documents.keys()].sort(), [
      "2.root.json",
      "2.snapshot.json",
      "2.targets.json",
      "timestamp.json",
    ]);
    for (const [name, bytes] of all.documents) {
      const { status, body } = await ask(hub, "GET", `/v1/trust/${name}`);
      if (bytes === null) assert.equal(status, 404);
      else assert.deepEqual(Buffer.from(bytes), body);
    }
    assert.deepEqual(
      all.entries.map(({ index, revision }) => [index, revision]),
      [
        [1, 1],
        [2, 2],
      ],
    );
    const few = await ahead("root=0&snapshot=2&targets=2&epoch=1&log=2");
    assert.deepEqual([...few.documents.keys()], ["1.root.json", "timestamp.json", "2.root.json"]);
    assert.deepEqual(few.entries, []);
  });

  test("A25: no change of a row makes another revision pass for a signed one", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const before = await verified(hub);
    const changes = [
      "update revision_manifest set sha256 = (select min(sha256) from content), size = 1, files = 1, bytes = 1",
      "update software_revision set digest = decode(repeat('ab', 32), 'hex'), package_closure = '{\"X/Y\": [\"Z/Z\"]}'",
      "update revision_file set sha256 = sha256, size = 1, path = 'elsewhere/' || path",
      "update trust_release set digest = decode(repeat('ab', 32), 'hex'), revision = 7",
    ];
    for (const change of changes) {
      await hub.pool.query(change);
      assert.deepEqual(await verified(hub), before, change);
    }
    // The documents themselves: every one of them altered is refused.
    for (const role of ["root", "targets", "snapshot", "timestamp"]) {
      const { rows } = await hub.pool.query("select bytes from trust_document where role = $1", [role]);
      // Another bit, not another case: `A` for an `a` is the same digit of a signature.
      const altered =
        "update trust_document set bytes = set_byte(bytes, 200, get_byte(bytes, 200) # 1) where role = $1";
      await hub.pool.query(altered, [role]);
      await assert.rejects(verified(hub), { code: "TRUST_REFUSED" }, role);
      await hub.pool.query("update trust_document set bytes = $2 where role = $1", [role, rows[0].bytes]);
    }
    assert.deepEqual(await verified(hub), before);
  });

  test("signatures are renewed at half of their life, and only by who has the key", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const day = 86_400_000;
    let now = Date.now();
    const clock = { ...systemClock, now: () => now };
    const publisher = new TrustPublisher({
      dataDirectory: hub.directory,
      passphrase: null,
      clock,
      log: silentLogger,
    });
    assert.deepEqual(await renewDue(hub.pool, publisher, silentLogger), []);
    now += 2 * day;
    assert.deepEqual(await renewDue(hub.pool, publisher, silentLogger), ["timestamp"]);
    now += 8 * day;
    await assert.rejects(verified(hub, clock), { code: "TRUST_EXPIRED" });
    assert.deepEqual(await renewDue(hub.pool, publisher, silentLogger), ["snapshot", "timestamp"]);
    assert.equal((await verified(hub, clock)).document.number, 1);
    now += 400 * day;
    const all = ["root", "targets", "snapshot", "timestamp"];
    assert.deepEqual(await renewDue(hub.pool, publisher, silentLogger), all);
    assert.equal((await verified(hub, clock)).document.number, 1);
    // The control: without keys nothing is renewed, and it shows.
    rmSync(join(hub.directory, "keys"), { recursive: true });
    now += 10 * day;
    assert.deepEqual(await renewDue(hub.pool, publisher, silentLogger), []);
    await assert.rejects(verified(hub, clock), { code: "TRUST_EXPIRED" });
  });
}

describe("what a hub signs", () => suite(usePostgres()));

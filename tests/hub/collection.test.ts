import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { RevisionList } from "@lockstep/protocol";
import { usePostgres } from "../support/postgres.ts";
import { load, loadAndSettle, release } from "./support/release.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { countRows, startTestHub, type TestHub } from "./support/test-hub.ts";

describe("retention and collection", () => {
  const server = usePostgres();

  const numbers = async (hub: TestHub) =>
    (await askJson<RevisionList>(hub, "GET", "/v1/revisions")).revisions.map((row) => row.number);

  const keep = (hub: TestHub, count: number) =>
    askJson(hub, "PUT", "/v1/settings", { "Common/Revision/Keep": count });

  /** Contents that some row of the repository means. */
  async function meant(hub: TestHub): Promise<number> {
    const { rows } = await hub.pool.query<{ count: number }>(
      `select count(*)::int as count from (
         select sha256 from file_revision where sha256 is not null union select sha256 from revision_file
         union select sha256 from revision_manifest
         union select update_archive from software_revision where update_archive is not null) as c`,
    );
    return rows[0]?.count ?? -1;
  }

  test("old revisions go with the contents that only they held; the kept ones stay whole", async (t) => {
    const hub = await startTestHub(t, server);
    await keep(hub, 2);
    for (let round = 1; round <= 5; round++)
      await loadAndSettle(
        hub,
        release({ stays: "same", changes: `version ${round}` }, { version: `${round}.0` }),
      );
    assert.deepEqual(await numbers(hub), [5, 4]);
    assert.equal((await countRows(hub.pool)).content, await meant(hub));
    assert.equal(codeOf(await ask(hub, "GET", "/v1/revisions/3")), "REVISION_UNKNOWN");
    const diff = await askJson<{ files: { path: string; from: { sha256: string } }[] }>(
      hub,
      "GET",
      "/v1/revisions/diff?from=4&to=5",
    );
    assert.deepEqual(
      diff.files.map((file) => file.path),
      ["changes"],
    );
    const old = diff.files[0]?.from.sha256;
    assert.equal((await ask(hub, "GET", `/v1/files/sha256/${old}`)).body.toString(), "version 4");
    const { rows } = await hub.pool.query("select from revision_file where path = 'changes'");
    assert.equal(rows.length, 2);
    await askJson(hub, "POST", "/v1/revisions/4/revert");
    await hub.settled();
    assert.deepEqual(await numbers(hub), [6, 5]);
  });

  test("a revision that an installation is at is kept, however old", async (t) => {
    const hub = await startTestHub(t, server);
    await keep(hub, 1);
    await loadAndSettle(hub, release({ a: "1" }));
    const report = {
      host: "web-1",
      directory: "/opt/app",
      roles: ["Server"],
      packages: [],
      revision: 1,
      outcome: "updated",
      problem: null,
      autoUpdate: true,
      updaterVersion: "0.1.0",
    };
    assert.equal((await ask(hub, "PUT", "/v1/installations/i-1", { body: report })).status, 204);
    for (let round = 2; round <= 4; round++)
      await loadAndSettle(hub, release({ a: String(round) }, { version: `${round}` }));
    assert.deepEqual(await numbers(hub), [4, 1]);
    await hub.pool.query("update installation set seen_at = now() - interval '31 days'");
    await loadAndSettle(hub, release({ a: "5" }, { version: "5" }));
    assert.deepEqual(await numbers(hub), [5]);
  });

  test("a collection never takes a content that a load counts on", async (t) => {
    const hub = await startTestHub(t, server);
    await keep(hub, 1);
    // Contents go and come back all the time, while loads find them present or missing.
    const words = Array.from({ length: 12 }, (_, index) => `content ${index} `.repeat(index + 1));
    const pick = (round: number) =>
      Object.fromEntries(
        words
          .filter((_, index) => (round * 7 + index * 5) % 3 !== 0)
          .map((word, index) => [`f${index}`, word]),
      );
    let conflicts = 0;
    const loader = async (module: string) => {
      for (let round = 0; round < 12; round++) {
        const what = release(
          Object.fromEntries(
            Object.entries(pick(round + module.length)).map(([path, word]) => [`${module}/${path}`, word]),
          ),
          { module, version: `${round}` },
        );
        for (;;) {
          try {
            await load(hub, what);
            break;
          } catch (error) {
            // Between comparison and load a content went: said, and loading again works.
            if (!(error instanceof Error) || !error.message.includes("LOAD_CONFLICT")) throw error;
            conflicts++;
          }
        }
      }
    };
    await Promise.all([loader("A"), loader("BB"), loader("CCCC")]);
    await hub.settled();
    await hub.pool.query("select dbqueue_insert_single('LOCKSTEP-K-CollectContent')");
    await hub.settled();
    assert.equal((await countRows(hub.pool)).content, await meant(hub));
    const { files } = await askJson<{ files: { path: string; sha256: string }[] }>(hub, "GET", "/v1/files");
    for (const file of files)
      assert.equal((await ask(hub, "GET", `/v1/files/sha256/${file.sha256}`)).status, 200, file.path);
    t.diagnostic(`${conflicts} conflicts`);
  });

  test("while a load is under way the collection is put off, not lost", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    const holder = await hub.pool.connect();
    try {
      await holder.query("begin");
      await holder.query("select pg_advisory_xact_lock($1)", [0x4c4f434b_00000002n]);
      await hub.pool.query("select dbqueue_insert_single('LOCKSTEP-K-CollectContent')");
      const journal = async () =>
        (
          await askJson<{ journal: { task: string; event: string; detail: string }[] }>(
            hub,
            "GET",
            "/v1/dbqueue",
          )
        ).journal;
      while (
        !(await journal()).some((row) => row.event === "deferred" && /a load or a change/.test(row.detail))
      )
        await new Promise((resolve) => setTimeout(resolve, 20));
    } finally {
      await holder.query("rollback");
      holder.release();
    }
    const waiting = async () =>
      (await hub.pool.query("select from dbqueue_task union all select from dbqueue_current")).rows.length;
    while ((await waiting()) > 0) await new Promise((resolve) => setTimeout(resolve, 50));
  });
});

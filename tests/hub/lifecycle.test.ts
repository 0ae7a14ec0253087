import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, stat, writeFile } from "node:fs/promises";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { describe, test } from "node:test";
import { type Clock, createLogger, silentLogger, systemClock } from "@lockstep/platform";
import { type HubStatus, isLockstepError, type Setup } from "@lockstep/protocol";
import { migrate, readMigrations } from "../../packages/hub/src/db/migrate.ts";
import { type HubOptions, startHub } from "../../packages/hub/src/hub.ts";
import { makeCertificate } from "../support/certificate.ts";
import { usePostgres } from "../support/postgres.ts";
import { load, loadAndSettle, loadStream, release, sendLoad } from "./support/release.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startProcess } from "./support/start-process.ts";
import {
  connectionString,
  countRows,
  startTestHub,
  TEST_UPDATER,
  temporaryDirectory,
  untilUploading,
} from "./support/test-hub.ts";

const codeIs = (code: string) => (error: unknown) => isLockstepError(error) && error.code === code;

describe("the life of a hub", () => {
  const server = usePostgres();

  test("a data directory belongs to one hub at a time", async (t) => {
    const hub = await startTestHub(t, server);
    const second = {
      dataDirectory: hub.directory,
      database: connectionString(hub.database.address),
      listen: "127.0.0.1:0",
      log: silentLogger,
    };
    await assert.rejects(startHub(second), codeIs("HUB_ALREADY_RUNNING"));
    assert.equal((await ask(hub, "GET", "/health")).status, 200);
    await hub.stop();
    await (await startHub({ ...second, updater: TEST_UPDATER })).stop();
  });

  test("it listens on this machine alone unless token and certificate protect it", async (t) => {
    const dataDirectory = await temporaryDirectory(t);
    const start = (options: Partial<HubOptions>) =>
      startHub({
        dataDirectory,
        log: silentLogger,
        database: "postgres://nobody@127.0.0.1:1/none",
        ...options,
      });
    await assert.rejects(start({ listen: "0.0.0.0:0" }), codeIs("HUB_LISTEN_REFUSED"));
    await assert.rejects(start({ listen: "[::]:0", development: true }), codeIs("HUB_LISTEN_REFUSED"));
    await assert.rejects(
      start({ listen: "192.0.2.1:80", development: true, tls: { certFile: "c", keyFile: "k" } }),
      codeIs("HUB_LISTEN_REFUSED"),
    );
    await assert.rejects(start({ listen: "here" }), codeIs("USAGE"));
    await assert.rejects(start({ listen: "127.0.0.1:0" }), codeIs("DATABASE_UNREACHABLE"));
  });

  test("a port that is taken is named, and nothing stays behind", async (t) => {
    const hub = await startTestHub(t, server);
    const listen = new URL(hub.url).host;
    await assert.rejects(startTestHub(t, server, { listen }), codeIs("HUB_LISTEN_FAILED"));
    assert.equal((await ask(hub, "GET", "/health")).status, 200);
  });

  test("with a certificate it serves HTTPS", async (t) => {
    const directory = await temporaryDirectory(t);
    const { certFile, keyFile } = await makeCertificate(directory);
    const hub = await startTestHub(t, server, { listen: "0.0.0.0:0", tls: { certFile, keyFile } });
    const { port } = new URL(hub.url);
    assert.match(hub.url, /^https:\/\/0\.0\.0\.0:/);
    const status = await new Promise<number | undefined>((resolve, reject) => {
      readFile(certFile).then((ca) => {
        const options = {
          host: "127.0.0.1",
          port,
          path: "/v1/files",
          ca,
          headers: { authorization: `Bearer ${hub.token}` },
          agent: false,
        };
        httpsRequest(options, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on("error", reject)
          .end();
      }, reject);
    });
    assert.equal(status, 200);
  });

  test("a certificate that expires soon or has expired is said in the log and by the status", async (t) => {
    const files = await makeCertificate(await temporaryDirectory(t));
    const ca = await readFile(files.certFile);
    const hourMs = 3_600_000;
    // It is good for 48 hours.
    for (const [hours, level, message] of [
      [1, null, ""],
      [40, "warn", "expires soon"],
      [49, "error", "has expired"],
    ] as const) {
      const lines: { level: string; message: string; secondsLeft?: number }[] = [];
      const clock: Clock = { ...systemClock, now: () => Date.now() + hours * hourMs };
      const write = (line: string) => void lines.push(JSON.parse(line));
      const log = createLogger({ level: "info", format: "json", write, clock: systemClock });
      const hub = await startTestHub(t, server, { tls: files, clock, log });
      const said = lines.filter((line) => line.message.startsWith("the hub's certificate"));
      assert.deepEqual(
        said.map((line) => line.level),
        level === null ? [] : [level],
      );
      assert.ok(said.every((line) => line.message.includes(message)));
      const status = await new Promise<string>((resolve, reject) => {
        const headers = { authorization: `Bearer ${hub.token}` };
        httpsRequest(`${hub.url}/v1/status`, { ca, headers, agent: false }, (response) => {
          let text = "";
          response
            .setEncoding("utf8")
            .on("data", (piece: string) => {
              text += piece;
            })
            .on("end", () => resolve(text));
        })
          .on("error", reject)
          .end();
      });
      const { certificate } = JSON.parse(status) as HubStatus;
      const left = (certificate?.secondsLeft ?? 0) / 3_600;
      assert.ok(left <= 48 - hours && left > 47.5 - hours, `${left} h of ${48 - hours}`);
      await hub.stop();
    }
  });

  test("what cannot serve as a certificate with its key is refused by the name of its file", async (t) => {
    const [one, other] = [
      await makeCertificate(await temporaryDirectory(t)),
      await makeCertificate(await temporaryDirectory(t)),
    ];
    for (const [certFile, keyFile, problem] of [
      [join(one.certFile, "missing"), one.keyFile, /missing cannot be read$/],
      [one.keyFile, one.keyFile, /key\.pem holds no certificate$/],
      [one.certFile, one.certFile, /cert\.pem holds no private key$/],
      [one.certFile, other.keyFile, /is not the key of /],
    ] as const)
      await assert.rejects(startTestHub(t, server, { tls: { certFile, keyFile } }), (error) => {
        assert.ok(isLockstepError(error, "CONFIG_INVALID"), String(error));
        assert.match(error.message, problem);
        return true;
      });
  });

  test("the token is made once, for this user alone, and a broken file is refused", async (t) => {
    const hub = await startTestHub(t, server);
    const file = join(hub.directory, "token");
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.equal((await readFile(file, "utf8")).trim(), hub.token);
    assert.ok(hub.token.length >= 40);
    await hub.stop();
    const again = await startTestHub(t, server, { shared: hub.database, dataDirectory: hub.directory });
    assert.equal(again.token, hub.token);
    await again.stop();
    await writeFile(file, "short\n");
    await assert.rejects(
      startTestHub(t, server, { shared: hub.database, dataDirectory: hub.directory }),
      codeIs("CONFIG_INVALID"),
    );
  });

  test("an empty database gets its schema at once; an older one waits for the set-up", async (t) => {
    const fresh = await startTestHub(t, server, { empty: true });
    assert.equal((await ask(fresh, "GET", "/v1/files")).status, 200);

    const database = await server.database(t, { empty: true });
    await migrate(database.pool, { migrations: (await readMigrations()).slice(0, 1) });
    const hub = await startTestHub(t, server, { shared: database });
    for (const path of ["/v1/files", "/v1/revision", "/v1/revisions", "/v1/dbqueue"])
      assert.equal(codeOf(await ask(hub, "GET", path)), "DATABASE_SCHEMA_OLDER", path);
    assert.equal((await ask(hub, "GET", "/health")).status, 200);
    const status = await askJson<{ schema: number; setup: string[] }>(hub, "GET", "/v1/status");
    assert.equal(status.schema, 1);
    assert.match(status.setup.join(), /schema 1/);
    const before = await askJson<Setup>(hub, "GET", "/v1/setup");
    assert.deepEqual(
      before.steps.map((step) => step.state),
      ["done", "needed", "needed", "needed", "needed"],
    );
    const after = await askJson<Setup>(hub, "POST", "/v1/setup");
    assert.deepEqual(
      after.steps.map((step) => `${step.id} ${step.state}`),
      ["database done", "schema done", "modules done", "update-archive done", "revision done"],
    );
    assert.equal((await ask(hub, "GET", "/v1/files")).status, 200);
  });

  test("a database of a newer hub is refused", async (t) => {
    const database = await server.database(t);
    await database.pool.query(
      "insert into schema_migration (number, name, sha256) values (99, 'future', 'x')",
    );
    await assert.rejects(startTestHub(t, server, { shared: database }), codeIs("DATABASE_SCHEMA_NEWER"));
  });

  test("a newer hub that changes the schema meanwhile is noticed before anything is changed", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1" }));
    assert.equal((await ask(hub, "GET", "/health")).status, 200);
    await hub.pool.query("insert into schema_migration (number, name, sha256) values (99, 'future', 'x')");
    const before = await countRows(hub.pool);
    const code = async (method: string, path: string, body?: unknown) =>
      codeOf(await ask(hub, method, path, { body }));
    const { request, contents } = release({ a: "2" });
    assert.equal(
      codeOf(await sendLoad(hub, loadStream(request, contents.values()))),
      "DATABASE_SCHEMA_NEWER",
    );
    const newer = "DATABASE_SCHEMA_NEWER";
    assert.equal(await code("POST", "/v1/files/remove", { match: "**" }), newer);
    const assign = { match: "**", add: ["role:B"], remove: [], only: false };
    assert.equal(await code("POST", "/v1/files/assign", assign), newer);
    assert.equal(await code("POST", "/v1/revisions/1/revert"), newer);
    assert.equal(await code("PUT", "/v1/settings", { "Common/AutoUpdate": false }), newer);
    assert.equal(await code("PUT", "/v1/dbqueue/stopped", { stopped: true, reason: null }), newer);
    assert.equal(await code("GET", "/health"), newer);
    assert.equal(await code("GET", "/v1/status"), newer);
    assert.deepEqual(await countRows(hub.pool), before);
    // Installations are still told what there is.
    assert.equal((await ask(hub, "GET", "/v1/revision")).json().revision, 1);
    assert.equal((await ask(hub, "GET", "/v1/revisions/1")).status, 200);
  });

  test("the set-up brings in what is shipped, goes on where it stopped, and does nothing twice", async (t) => {
    const hub = await startTestHub(t, server);
    await askJson(hub, "PUT", "/v1/dbqueue/stopped", { stopped: true, reason: null });
    const stuck = await askJson<Setup>(hub, "POST", "/v1/setup");
    assert.deepEqual(
      stuck.steps.map((step) => step.state),
      ["done", "done", "done", "failed", "needed"],
    );
    assert.match(stuck.steps[3]?.detail ?? "", /emergency stop/);
    await askJson(hub, "PUT", "/v1/dbqueue/stopped", { stopped: false, reason: null });
    const done = await askJson<Setup>(hub, "POST", "/v1/setup");
    assert.ok(
      done.steps.every((step) => step.state === "done"),
      JSON.stringify(done),
    );
    await hub.settled();
    const rows = await countRows(hub.pool);
    const revision = await askJson<{ selectablePackages: string[]; selectableRoles: string[] }>(
      hub,
      "GET",
      "/v1/revisions/1",
    );
    assert.deepEqual([revision.selectablePackages, revision.selectableRoles], [["LOCKSTEP/Updater"], []]);
    assert.deepEqual(await askJson<Setup>(hub, "POST", "/v1/setup"), done);
    assert.deepEqual(await countRows(hub.pool), rows);
    assert.deepEqual((await askJson<{ setup: string[] }>(hub, "GET", "/v1/status")).setup, []);
    // Another version of the hub brings another updater.
    await hub.stop();
    const updater = { version: "0.2.0", load: async () => Buffer.from("export const updater = 2;\n") };
    const newer = await startTestHub(t, server, {
      shared: hub.database,
      dataDirectory: hub.directory,
      updater,
    });
    const states = (await askJson<Setup>(newer, "GET", "/v1/setup")).steps.map((step) => step.state);
    assert.deepEqual(states, ["done", "done", "needed", "needed", "needed"]);
    const renewed = await askJson<Setup>(newer, "POST", "/v1/setup");
    assert.ok(
      renewed.steps.every((step) => step.state === "done"),
      JSON.stringify(renewed),
    );
  });

  test("stopping lets a load that is under way finish", async (t) => {
    const hub = await startTestHub(t, server);
    const what = release({ a: "1".repeat(1000), b: "2" });
    const pieces = [...loadStream(what.request, what.contents.values())];
    const { promise: held, resolve: release_ } = Promise.withResolvers<void>();
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
    async function* slowly() {
      yield* pieces.slice(0, 2);
      begin();
      await held;
      yield* pieces.slice(2);
    }
    const answer = sendLoad(hub, slowly());
    await begun;
    await untilUploading(hub.pool);
    const stopped = hub.running.stop({ graceMs: 60_000 });
    await assert.rejects(untilRefused(hub.url));
    release_();
    assert.equal((await answer).status, 200);
    await stopped;
    const { rows } = await hub.pool.query("select from file_revision where module_id = 'APP'");
    assert.equal(rows.length, 2);
  });

  test("a load that does not finish in time is cut, and leaves nothing", async (t) => {
    const hub = await startTestHub(t, server);
    const before = await countRows(hub.pool);
    const what = release({ a: "1".repeat(1000) });
    const pieces = [...loadStream(what.request, what.contents.values())];
    async function* forever() {
      yield* pieces.slice(0, 2);
      await new Promise(() => {});
    }
    const answer = sendLoad(hub, forever());
    answer.catch(() => {});
    await untilUploading(hub.pool);
    await hub.running.stop({ graceMs: 50 });
    await assert.rejects(answer);
    assert.deepEqual(await countRows(hub.pool), before);
  });

  test("several hubs on one database share the work, and every one shows every revision", async (t) => {
    const first = await startTestHub(t, server);
    const second = await startTestHub(t, server, { shared: first.database });
    const poll = ask(second, "GET", "/v1/revision?after=0&wait=50");
    assert.equal(await loadAndSettle(first, release({ a: "1" })), 1);
    assert.equal((await poll).json().revision, 1);
    const rounds = 6;
    await Promise.all(
      [first, second].map(async (hub, index) => {
        for (let round = 0; round < rounds; round++)
          await load(
            hub,
            release({ [`m${index}`]: `round ${round}` }, { module: `M${index}`, version: `${round}` }),
          );
      }),
    );
    await first.settled();
    const { rows } = await first.pool.query<{ revision: number; loads: number }>(
      "select revision, count(*)::int as loads from release_load group by revision order by revision",
    );
    const { revision } = await askJson<{ revision: number }>(second, "GET", `/v1/loads/13/revision?wait=50`);
    assert.equal(
      rows.reduce((sum, row) => sum + row.loads, 0),
      1 + 2 * rounds,
    );
    assert.ok(rows.every((row) => row.revision !== null && row.revision >= 1));
    assert.equal(rows.at(-1)?.revision, revision);
    const list = await askJson<{ current: number; revisions: { number: number }[] }>(
      second,
      "GET",
      "/v1/revisions",
    );
    assert.deepEqual(
      list.revisions.map((row) => row.number),
      Array.from({ length: list.current }, (_, index) => list.current - index),
    );
    // A content is served by a hub that never saw it come.
    const { files } = await askJson<{ files: { path: string; sha256: string }[] }>(
      second,
      "GET",
      "/v1/files?match=m0",
    );
    const answer = await ask(second, "GET", `/v1/files/sha256/${files[0]?.sha256}`);
    assert.equal(answer.body.toString(), `round ${rounds - 1}`);
  });

  test("killed at any moment of a load it loses nothing that it acknowledged, and keeps nothing of the rest", async (t) => {
    const directory = await temporaryDirectory(t);
    let acknowledged = 0;
    let hub = await startProcess(t, { dataDirectory: directory });
    const token = (await readFile(join(directory, "token"), "utf8")).trim();
    for (let round = 0; round < 3; round++) {
      const killed = once(hub.process, "exit");
      const loading = (async () => {
        for (;;) {
          const number = acknowledged + 1;
          const text = `load ${number} `.repeat(20_000);
          await load(
            { url: hub.url, token },
            release(
              { counter: text, [`file-${number}`]: text },
              { kind: "service-pack", version: `${number}` },
            ),
          );
          acknowledged = number;
        }
      })();
      loading.catch(() => {});
      const wanted = acknowledged + 3 + round * 2;
      while (acknowledged < wanted) await new Promise((resolve) => setTimeout(resolve, 1));
      hub.process.kill("SIGKILL");
      await killed;
      await assert.rejects(loading);
      hub = await startProcess(t, { dataDirectory: directory });
      const { files } = await askJson<{
        files: { path: string; module: string; sha256: string; size: number }[];
      }>({ url: hub.url, token }, "GET", "/v1/files?limit=10000");
      const loaded = files
        .filter((file) => file.path.startsWith("file-"))
        .map((file) => Number(file.path.slice(5)));
      const newest = Math.max(0, ...loaded);
      assert.ok(newest === acknowledged || newest === acknowledged + 1, `${newest} of ${acknowledged}`);
      assert.deepEqual(
        loaded.sort((a, b) => a - b),
        Array.from({ length: newest }, (_, index) => index + 1),
      );
      const counter = files.find((file) => file.path === "counter");
      assert.equal(counter?.sha256, files.find((file) => file.path === `file-${newest}`)?.sha256);
      for (const file of files) {
        const answer = await ask({ url: hub.url, token }, "GET", `/v1/files/sha256/${file.sha256}`);
        assert.equal(answer.body.length, file.size, file.path);
      }
      acknowledged = newest;
      const { revision } = await askJson<{ revision: number | null }>(
        { url: hub.url, token },
        "GET",
        `/v1/loads/${newest}/revision?wait=50`,
      );
      assert.notEqual(revision, null);
    }
    hub.process.kill("SIGTERM");
    const [status] = await once(hub.process, "exit");
    assert.equal(status, 0);
  });
});

/** Rejects as soon as nothing listens at the address any more. */
async function untilRefused(url: string): Promise<void> {
  for (;;) {
    await ask({ url, token: "" }, "GET", "/health");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

import "../support/property-seed.ts";
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { byPath, computeManifests, formatTarget, UPDATE_ARCHIVE_PATH } from "@lockstep/core";
import {
  type LoadKind,
  parseManifest,
  type RevertResult,
  type RevisionDiff,
  type RevisionDocument,
  type RevisionList,
} from "@lockstep/protocol";
import fc from "fast-check";
import { parseTextArray } from "../../packages/hub/src/repository/software-revision.ts";
import { readState } from "../../packages/hub/src/repository/state.ts";
import { usePostgres } from "../support/postgres.ts";
import { load, loadAndSettle, type ReleaseFile, release } from "./support/release.ts";
import { ask, askJson, codeOf } from "./support/requests.ts";
import { startTestHub, type TestHub } from "./support/test-hub.ts";

interface SetFile {
  readonly path: string;
  readonly sha256: string;
  readonly mode: number;
  readonly targets: readonly string[];
}

describe("software revisions", () => {
  const server = usePostgres();

  async function current(hub: TestHub): Promise<number> {
    return (await askJson<{ revision: number }>(hub, "GET", "/v1/revision")).revision;
  }

  /** What the tables say is distributed, read row by row. */
  async function tableSet(hub: TestHub): Promise<SetFile[]> {
    const { rows } = await hub.pool.query<SetFile>(
      `select path, encode(sha256, 'hex') as sha256, mode,
         array(select t.kind || ':' || t.name from file_has_deploy_target h join deploy_target t on t.id = h.target_id
           where h.file_id = f.id) as targets
       from file_revision f where sha256 is not null`,
    );
    return rows
      .filter((row) => row.targets.length > 0)
      .map((row) => ({ ...row, targets: row.targets.toSorted() }))
      .sort(byPath);
  }

  /** What a revision says, through its difference to nothing. */
  async function revisionSet(hub: TestHub, number: number): Promise<SetFile[]> {
    const { files } = await askJson<RevisionDiff>(hub, "GET", `/v1/revisions/diff?from=0&to=${number}`);
    return files.map(({ path, to }) => {
      assert.ok(to !== null);
      return { path, sha256: to.sha256, mode: to.mode, targets: to.targets };
    });
  }

  async function checkManifests(hub: TestHub, number: number): Promise<void> {
    const document = await askJson<RevisionDocument>(hub, "GET", `/v1/revisions/${number}`);
    const state = await readState(hub.pool);
    const files = [...state.files.values()].flatMap((file) =>
      file.sha256 === null || file.size === null ? [] : [{ ...file, sha256: file.sha256, size: file.size }],
    );
    const expected = [...computeManifests(files, state.layout)];
    assert.deepEqual(
      document.manifests.map((ref) => ref.target),
      expected.map((manifest) => formatTarget(manifest.target)),
    );
    for (const [index, ref] of document.manifests.entries()) {
      const text = (await ask(hub, "GET", `/v1/manifests/sha256/${ref.sha256}`)).body.toString("utf8");
      const { entries } = parseManifest(text);
      assert.deepEqual(entries, expected[index]?.entries);
      assert.equal(ref.files, entries.length);
      assert.equal(
        ref.bytes,
        entries.reduce((sum, entry) => sum + entry.size, 0),
      );
    }
  }

  const paths = ["a", "b", "bin/a", "bin/b", "c.update.mjs"];
  const file: fc.Arbitrary<ReleaseFile> = fc.record({
    content: fc.constantFrom("1", "2", "3"),
    targets: fc.option(fc.subarray(["role:Server", "role:Client/Admin"]), { nil: null }),
    mode: fc.constantFrom(0o644, 0o755),
  });
  const files = fc.dictionary(fc.constantFrom(...paths), file, { minKeys: 1 });
  const operations = fc.oneof(
    fc.record({
      kind: fc.constant("load" as const),
      as: fc.constantFrom<LoadKind>("version", "service-pack", "hotfix", "custom"),
      module: fc.constantFrom("APP", "OTHER"),
      files,
    }),
    fc.record({
      kind: fc.constant("assign" as const),
      match: fc.constantFrom("**", "bin/*", "a"),
      target: fc.constantFrom("role:Server", "role:Client/Admin"),
      how: fc.constantFrom("add", "remove", "only"),
    }),
    fc.record({ kind: fc.constant("remove" as const), match: fc.constantFrom("a", "bin/*") }),
    fc.record({
      kind: fc.constant("sql" as const),
      statement: fc.constantFrom(
        "update file_revision set mode = 448 where path = 'a'",
        "delete from file_revision where path = 'b'",
        "update file_revision set version = 'x'",
        "delete from file_has_deploy_target where file_id in (select id from file_revision where path like 'bin/%')",
      ),
    }),
    fc.record({ kind: fc.constant("revert" as const), back: fc.integer({ min: 1, max: 4 }) }),
  );
  type Operation = typeof operations extends fc.Arbitrary<infer T> ? T : never;

  async function carryOut(hub: TestHub, operation: Operation): Promise<void> {
    switch (operation.kind) {
      case "load": {
        const what = release(operation.files, {
          kind: operation.as,
          module: operation.module,
          allowDowngrade: true,
        });
        const module = operation.as === "custom" ? "CCC" : operation.module;
        const { refusals } = await askJson<{ refusals: unknown[] }>(hub, "POST", "/v1/loads/compare", {
          ...what.request,
          module: { ...what.request.module, id: module },
        });
        if (refusals.length === 0) await load(hub, what);
        return;
      }
      case "assign": {
        const { match, target, how } = operation;
        const body = {
          match,
          add: how === "remove" ? [] : [target],
          remove: how === "remove" ? [target] : [],
          only: how === "only",
        };
        const answer = await ask(hub, "POST", "/v1/files/assign", { body });
        if (answer.status !== 200)
          assert.ok(["FILE_UNKNOWN", "ROLE_UNKNOWN"].includes(codeOf(answer)), codeOf(answer));
        return;
      }
      case "remove": {
        const answer = await ask(hub, "POST", "/v1/files/remove", { body: { match: operation.match } });
        if (answer.status !== 200) assert.equal(codeOf(answer), "FILE_UNKNOWN");
        return;
      }
      case "sql":
        await hub.pool.query(operation.statement);
        return;
      case "revert": {
        const to = (await current(hub)) - operation.back;
        if (to >= 1) await askJson(hub, "POST", `/v1/revisions/${to}/revert`);
      }
    }
  }

  /** Carries the operations out one by one, and holds the hub against sets that are kept beside it. */
  async function followTwin(hub: TestHub, sequence: readonly Operation[]): Promise<void> {
    const known: SetFile[][] = [[]];
    const documents: string[] = [""];
    for (const operation of sequence) {
      const target = operation.kind === "revert" ? known.length - 1 - operation.back : 0;
      await carryOut(hub, operation);
      await hub.settled();
      const number = await current(hub);
      assert.ok(number <= known.length, "one change moves the semaphore at most once");
      const expected = await tableSet(hub);
      assert.deepEqual(await revisionSet(hub, number), number === 0 ? [] : expected);
      if (number === 0) continue;
      await checkManifests(hub, number);
      const {
        createdAt: _,
        number: __,
        ...rest
      } = await askJson<RevisionDocument>(hub, "GET", `/v1/revisions/${number}`);
      const document = JSON.stringify(rest);
      if (number < known.length) assert.equal(document, documents[number], "a revision never changes");
      else {
        assert.notEqual(document, documents.at(-1));
        known.push(expected);
        documents.push(document);
      }
      if (target >= 1) assert.deepEqual(expected, known[target], `the set of revision ${target} is back`);
    }
    // Any two revisions differ by exactly what their sets differ by.
    for (const from of known.keys())
      for (const to of known.keys()) {
        const diff = await askJson<RevisionDiff>(hub, "GET", `/v1/revisions/diff?from=${from}&to=${to}`);
        const changed = new Map(diff.files.map((entry) => [entry.path, entry]));
        const sides = [known[from] ?? [], known[to] ?? []].map(
          (set) => new Map(set.map((each) => [each.path, each])),
        );
        for (const path of new Set([...(sides[0]?.keys() ?? []), ...(sides[1]?.keys() ?? [])])) {
          const [before, after] = [sides[0]?.get(path), sides[1]?.get(path)];
          const same = JSON.stringify(before) === JSON.stringify(after);
          assert.equal(changed.has(path), !same, `${path} from ${from} to ${to}`);
          changed.delete(path);
        }
        assert.equal(changed.size, 0);
      }
  }

  test("whatever writes the tables, each revision is what they said, and no revision says the same as the one before", async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(operations, { minLength: 3, maxLength: 8 }), async (sequence) => {
        const hub = await startTestHub(t, server);
        try {
          await followTwin(hub, sequence);
        } finally {
          await hub.stop();
          await hub.database.close();
        }
      }),
      { numRuns: 12 },
    );
  });

  test("a revert restores roles, packages, module versions and removed files, and can itself be reverted", async (t) => {
    const hub = await startTestHub(t, server);
    const declared = {
      roles: [
        {
          path: "Server",
          description: "one",
          selectable: true,
          packages: [{ package: "APP/Core", subdirectory: "bin" }],
        },
      ],
      packages: [{ name: "APP/Core", description: "", selectable: true, requires: [] }],
    };
    await loadAndSettle(
      hub,
      release(
        { a: "1", gone: { content: "2", targets: ["package:APP/Core"], version: "1.2" } },
        { declared },
      ),
    );
    const first = await askJson<RevisionDocument>(hub, "GET", "/v1/revisions/1");
    await loadAndSettle(
      hub,
      release({ a: "3", new: "4" }, { version: "2.0", declared: { roles: [], packages: [] } }),
    );
    const second = await askJson<RevisionDocument>(hub, "GET", "/v1/revisions/2");
    assert.deepEqual(second.selectablePackages, []);

    const back = await askJson<RevertResult>(hub, "POST", "/v1/revisions/1/revert");
    assert.deepEqual(
      { ...back, load: 0 },
      { load: 0, to: 1, added: 1, changed: 1, removed: 1, revisionBefore: 2, changes: true },
    );
    await hub.settled();
    const same = ({ number: _, createdAt: __, ...rest }: RevisionDocument) => rest;
    const third = await askJson<RevisionDocument>(hub, "GET", "/v1/revisions/3");
    assert.deepEqual(same(third), same(first));
    const { rows } = await hub.pool.query("select version from module where id = 'APP'");
    assert.equal(rows[0]?.version, "1.0");
    const list = await askJson<RevisionList>(hub, "GET", "/v1/revisions");
    assert.deepEqual(list.revisions[0]?.releases, ["revert to 1"]);

    const nothing = await askJson<RevertResult>(hub, "POST", "/v1/revisions/1/revert");
    assert.equal(nothing.changes, false);
    await askJson<RevertResult>(hub, "POST", "/v1/revisions/2/revert");
    await hub.settled();
    const fourth = await askJson<RevisionDocument>(hub, "GET", "/v1/revisions/4");
    assert.deepEqual(same(fourth), same(second));
  });

  test("a revert leaves alone what is stored without being distributed", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(hub, release({ a: "1", kept: { content: "k", targets: [] } }));
    await askJson(hub, "POST", "/v1/files/assign", {
      match: "kept",
      add: ["role:Server"],
      remove: [],
      only: false,
    });
    await hub.settled();
    await askJson(hub, "POST", "/v1/revisions/1/revert");
    await hub.settled();
    const { files } = await askJson<{ files: { path: string; targets: string[] }[] }>(
      hub,
      "GET",
      "/v1/files?match=kept",
    );
    assert.deepEqual(
      files.map(({ path, targets }) => [path, targets]),
      [["kept", []]],
    );
  });

  test("Update.zip travels with the revision, holds the plug-ins that are assigned, and is the same byte for byte", async (t) => {
    const hub = await startTestHub(t, server);
    await loadAndSettle(
      hub,
      release({
        "x/b.update.mjs": "export {}",
        "a.update.mjs": { content: "1", targets: [] },
        "other.mjs": "2",
      }),
    );
    const archiveOf = async (number: number) =>
      (await askJson<RevisionDocument>(hub, "GET", `/v1/revisions/${number}`)).updateArchive ??
      assert.fail("no archive");
    const names = async (sha256: string) =>
      zipNames((await ask(hub, "GET", `/v1/files/sha256/${sha256}`)).body);
    const first = await archiveOf(1);
    assert.deepEqual(await names(first.sha256), ["update.json", "updater.mjs", "x/b.update.mjs"]);
    // Assigning a plug-in is enough to bring it in, also by plain SQL.
    await hub.pool.query(
      `insert into file_has_deploy_target select f.id, t.id from file_revision f, deploy_target t
       where f.path = 'a.update.mjs' and t.name = 'Server'`,
    );
    await hub.settled();
    const second = await archiveOf(2);
    assert.deepEqual(await names(second.sha256), [
      "update.json",
      "a.update.mjs",
      "updater.mjs",
      "x/b.update.mjs",
    ]);
    await askJson(hub, "POST", "/v1/files/assign", {
      match: "a.*",
      add: [],
      remove: ["role:Server"],
      only: false,
    });
    await hub.settled();
    assert.deepEqual(await archiveOf(3), first);
    // Removing everything removes everything but the archive.
    await askJson(hub, "POST", "/v1/files/remove", { match: "**" });
    await hub.settled();
    const { files } = await askJson<{ files: { path: string }[] }>(hub, "GET", "/v1/files");
    assert.deepEqual(
      files.map((each) => each.path),
      [UPDATE_ARCHIVE_PATH],
    );
  });

  test("without an updater the revision moves all the same, and the queue says what is missing", async (t) => {
    const updater = {
      version: "0.1.0",
      load: async () => await Promise.reject(new Error("nothing to bundle")),
    };
    const hub = await startTestHub(t, server, { updater, dbqueue: { retryBaseMs: 5, retryMaxMs: 10 } });
    const { load: id } = await load(hub, release({ a: "1" }));
    assert.deepEqual(await askJson(hub, "GET", `/v1/loads/${id}/revision?wait=50`), { revision: 1 });
    assert.equal((await askJson<RevisionDocument>(hub, "GET", "/v1/revisions/1")).updateArchive, null);
    // While it is being tried once more it has not failed yet, so the reason is looked for until it is there.
    const reason = async () => {
      const { tasks } = await askJson<{ tasks: { task: string; lastError: string | null }[] }>(
        hub,
        "GET",
        "/v1/dbqueue",
      );
      return tasks.find((row) => row.task === "LOCKSTEP-K-UpdateArchive")?.lastError ?? "";
    };
    let found = await reason();
    while (found === "") found = await reason();
    assert.match(found, /nothing to bundle/);
  });

  test("a set that no installation could hold is not published, and the paths are named", async (t) => {
    const hub = await startTestHub(t, server, { dbqueue: { retryBaseMs: 5, retryMaxMs: 10 } });
    await loadAndSettle(hub, release({ a: "1" }));
    await hub.pool.query("update file_revision set path = '../a' where path = 'a'");
    const lastError = async () => {
      const queue = await askJson<{ tasks: { task: string; lastError: string | null }[] }>(
        hub,
        "GET",
        "/v1/dbqueue",
      );
      return queue.tasks.find((row) => row.task === "LOCKSTEP-K-SoftwareRevision")?.lastError ?? "";
    };
    while (!/\.\.\/a/.test(await lastError())) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await current(hub), 1);
    await hub.pool.query("update file_revision set path = 'a' where path = '../a'");
    await hub.settled();
    assert.equal(await current(hub), 1);
    assert.equal(await lastError(), "");
  });

  test("lists of texts are read as PostgreSQL writes them", async (t) => {
    const { pool } = await server.database(t);
    const text = fc.string({
      unit: fc.constantFrom("a", " ", ",", '"', "\\", "{", "}", "é", "\n", "N", "U", "L"),
      maxLength: 8,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(text, { maxLength: 6 }), async (list) => {
        const { rows } = await pool.query<{ text: string }>("select $1::text[]::text as text", [list]);
        assert.deepEqual(parseTextArray(rows[0]?.text ?? ""), list);
      }),
      { numRuns: 200 },
    );
  });

  test("files are listed page by page, by pattern, in order", async (t) => {
    const hub = await startTestHub(t, server);
    const names = Array.from(
      { length: 25 },
      (_, index) => `dir${index % 3}/f${String(index).padStart(2, "0")}`,
    );
    await loadAndSettle(hub, release(Object.fromEntries(names.map((name) => [name, name]))));
    const seen: string[] = [];
    let after: string | null = "";
    while (after !== null) {
      const page: { files: { path: string }[]; next: string | null } = await askJson(
        hub,
        "GET",
        `/v1/files?match=${encodeURIComponent("dir*/**")}&limit=7&after=${encodeURIComponent(after)}`,
      );
      assert.ok(page.files.length <= 7);
      seen.push(...page.files.map((each) => each.path));
      after = page.next;
    }
    assert.deepEqual(seen, names.sort());
    const { roles } = await askJson<{ roles: { path: string; files: number }[] }>(hub, "GET", "/v1/targets");
    assert.deepEqual(
      roles.map(({ path, files: count }) => [path, count]),
      [["Server", 25]],
    );
    const assign = (body: object) =>
      ask(hub, "POST", "/v1/files/assign", { body: { remove: [], only: false, ...body } });
    assert.equal(codeOf(await assign({ match: "dir0/*", add: ["role:Nobody"] })), "ROLE_UNKNOWN");
    assert.equal(codeOf(await assign({ match: "dir0/*", add: ["package:A/B"] })), "PACKAGE_UNKNOWN");
    assert.equal(codeOf(await assign({ match: "none/*", add: ["role:Server"] })), "FILE_UNKNOWN");
    assert.equal(codeOf(await assign({ match: "[", add: ["role:Server"] })), "REQUEST_INVALID");
    assert.deepEqual((await assign({ match: "dir0/*", add: ["role:Server"] })).json(), { paths: [] });
  });
});

/** The names in a zip archive, from its central directory (APPNOTE 4.3.12). */
function zipNames(bytes: Buffer): string[] {
  const names: string[] = [];
  for (
    let at = bytes.indexOf("PK\x01\x02", 0, "latin1");
    at >= 0;
    at = bytes.indexOf("PK\x01\x02", at + 46, "latin1")
  )
    names.push(bytes.toString("utf8", at + 46, at + 46 + bytes.readUInt16LE(at + 28)));
  return names;
}

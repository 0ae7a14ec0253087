import assert from "node:assert/strict";
import * as fs from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, suite, type TestContext, test } from "node:test";
import { type Coordination, openEtcd, openPostgres, ServerSettings } from "@lockstep/cluster";
import { DEFAULT_VIRTUAL_SERVER, type VirtualServerDefinition } from "@lockstep/core";
import { realDisk, systemClock } from "@lockstep/platform";
import { usePostgres } from "../support/postgres.ts";
import { CALM_ELECTION, type EtcdCluster, findEtcd, startEtcd } from "./etcd-cluster.ts";

// Far above what is needed: nothing here is about time.
const CALL_MS = 120_000;
const PATIENCE_MS = 120_000;
const MiB = 1024 * 1024;

type Open = (t: TestContext) => Promise<Coordination>;

interface Story {
  readonly title: string;
  readonly tell: (pair: Pair) => Promise<void>;
}

/** Two nodes with directories of their own and one virtual server between them. */
class Pair {
  readonly #directory: string;
  readonly store: Coordination;
  readonly #stores: readonly Coordination[];
  readonly #nodes = new Map<string, Node>();
  #token = 0;

  constructor(directory: string, stores: readonly [Coordination, Coordination]) {
    this.#directory = directory;
    this.#stores = stores;
    this.store = stores[0];
  }

  node(name: "alpha" | "beta"): Node {
    const present = this.#nodes.get(name);
    if (present !== undefined) return present;
    const base = join(this.#directory, name);
    fs.mkdirSync(join(base, "data"), { recursive: true });
    fs.mkdirSync(join(base, "app"));
    const notes: string[] = [];
    const definition: VirtualServerDefinition = {
      ...DEFAULT_VIRTUAL_SERVER,
      name: "jobs",
      config: { path: join(base, "app", "app.toml"), hash: null },
    };
    const settings = new ServerSettings({
      definition,
      node: name,
      dataDirectory: join(base, "data"),
      directory: join(base, "private"),
      coordination: this.#stores[name === "alpha" ? 0 : 1] ?? this.store,
      disk: realDisk,
      clock: systemClock,
      listener: { noted: ({ what, detail }) => notes.push(`${what}: ${detail}`), changed: () => {} },
      // A scan in the far future: what is noticed, the watch noticed.
      times: { scanMs: 600_000 },
    });
    const node = {
      name,
      settings,
      notes,
      data: join(base, "data", "settings"),
      app: join(base, "app", "settings"),
    };
    this.#nodes.set(name, node);
    return node;
  }

  /** Makes a node the owner, as the lease would. Returns its token. */
  async own(name: "alpha" | "beta"): Promise<number> {
    this.#token += 1;
    const { revision } = await this.store.read("jobs");
    const record = { node: name, instance: `${name}#1`, token: this.#token, write: 1, next: null };
    const answer = await this.store.swap("jobs", { expected: revision, record, takes: true });
    assert.ok(answer.swapped);
    await this.node(name).settings.beforeOnline(this.#token);
    return this.#token;
  }

  get token(): number {
    return this.#token;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#nodes.values()].map(({ settings }) => settings.close()));
  }
}

interface Node {
  readonly name: string;
  readonly settings: ServerSettings;
  readonly notes: string[];
  readonly data: string;
  readonly app: string;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !holds(); ) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await systemClock.sleep(10);
  }
}

const numberOf = (node: Node) => node.settings.report().number ?? 0;

const write = (path: string, content: string | Uint8Array, mode = 0o644) => {
  fs.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  fs.writeFileSync(path, content, { mode });
  fs.chmodSync(path, mode);
};

const STORIES: readonly Story[] = [
  {
    title:
      "what a service changes on its owner is there on the next one before it starts (S4, S13, behaviour 52)",
    tell: async (pair) => {
      const [alpha, beta] = [pair.node("alpha"), pair.node("beta")];
      const token = await pair.own("alpha");
      write(`${alpha.data}/user.json`, '{"size":3}', 0o640);
      write(`${alpha.app}/deep/er/colours.ini`, "red", 0o600);
      write(`${alpha.app}/old.ini`, "old");
      fs.mkdirSync(`${alpha.app}/empty`);
      await until("three files stored", () => alpha.settings.report().files === 3);
      const first = numberOf(alpha);
      fs.rmSync(`${alpha.app}/old.ini`);
      await until(
        "the deletion stored",
        () => numberOf(alpha) > first && alpha.settings.report().files === 2,
      );
      // A change of the last moment, that no watch need have told of.
      write(`${alpha.data}/user.json`, '{"size":4}', 0o640);
      await alpha.settings.afterOffline(token);
      write(`${beta.app}/old.ini`, "a leftover");
      await pair.own("beta");
      assert.equal(fs.readFileSync(`${beta.data}/user.json`, "utf8"), '{"size":4}');
      assert.equal(fs.statSync(`${beta.data}/user.json`).mode & 0o777, 0o640);
      assert.equal(fs.readFileSync(`${beta.app}/deep/er/colours.ini`, "utf8"), "red");
      assert.equal(fs.existsSync(`${beta.app}/old.ini`), false);
      assert.ok(fs.statSync(`${beta.app}/empty`).isDirectory());
      assert.deepEqual(beta.settings.report().problems, []);
    },
  },
  {
    title:
      "what was changed on a node that was not the owner is overwritten, reported and kept (behaviour 53)",
    tell: async (pair) => {
      const [alpha, beta] = [pair.node("alpha"), pair.node("beta")];
      write(`${alpha.app}/a.ini`, "of the owner");
      await pair.own("alpha");
      await until("stored", () => numberOf(alpha) === 1);
      await alpha.settings.afterOffline(pair.token);
      await beta.settings.afterOffline(await pair.own("beta"));
      write(`${beta.app}/a.ini`, "edited here");
      fs.symlinkSync("/etc/hostname", `${beta.app}/link`);
      write(`${beta.app}/b.ini`, "made here");
      await alpha.settings.afterOffline(await pair.own("alpha"));
      assert.deepEqual(
        alpha.notes.filter((note) => note.startsWith("settings-overwritten")),
        [],
      );
      await pair.own("beta");
      assert.equal(fs.readFileSync(`${beta.app}/a.ini`, "utf8"), "of the owner");
      assert.equal(fs.existsSync(`${beta.app}/b.ini`), false);
      const told = beta.notes.filter((note) => note.startsWith("settings-overwritten"));
      assert.equal(told.length, 2, told.join("\n"));
      const copies = told.map((note) => fs.readFileSync(/copy in (.+)$/.exec(note)?.[1] ?? "", "utf8"));
      assert.deepEqual(copies.sort(), ["edited here", "made here"]);
      // A link is neither followed nor replicated nor taken away.
      assert.equal(fs.readlinkSync(`${beta.app}/link`), "/etc/hostname");
      await until("named", () =>
        beta.settings.report().problems.some((each) => /link.*not followed/.test(each)),
      );
    },
  },
  {
    title: "who is no longer the owner stores nothing, says so and stops",
    tell: async (pair) => {
      const [alpha, beta] = [pair.node("alpha"), pair.node("beta")];
      await pair.own("alpha");
      write(`${alpha.app}/a.ini`, "one");
      await until("stored", () => numberOf(alpha) === 1);
      await pair.own("beta");
      write(`${alpha.app}/a.ini`, "too late");
      await until("fenced", () => alpha.settings.report().state === "fenced");
      write(`${beta.app}/a.ini`, "two");
      await until("stored by the owner", () => numberOf(beta) === 2);
      await beta.settings.afterOffline(pair.token);
      await pair.own("alpha");
      assert.equal(fs.readFileSync(`${alpha.app}/a.ini`, "utf8"), "two");
      assert.match(
        alpha.notes.join("\n"),
        /settings-overwritten: .*a\.ini: changed here, not known to be stored/,
      );
      assert.equal(alpha.settings.report().state, "following");
    },
  },
  {
    title:
      "large files go in pieces, many files in many transactions, and what is no longer named is deleted",
    tell: async (pair) => {
      const [alpha, beta] = [pair.node("alpha"), pair.node("beta")];
      const large = Buffer.alloc(3 * MiB, "0123456789abcdef");
      large.writeUInt32LE(7, 2 * MiB);
      write(`${alpha.data}/large.db`, large);
      for (let count = 0; count < 150; count++) write(`${alpha.data}/many/${count}`, `of ${count}`);
      await pair.own("alpha");
      await until("stored", () => numberOf(alpha) === 1);
      await beta.settings.prefetch();
      await pair.own("beta");
      assert.ok(large.equals(fs.readFileSync(`${beta.data}/large.db`)));
      assert.equal(fs.readFileSync(`${beta.data}/many/149`, "utf8"), "of 149");
      fs.rmSync(`${beta.data}/large.db`);
      fs.rmSync(`${beta.data}/many`, { recursive: true });
      write(`${beta.data}/small`, "x");
      await until(
        "stored",
        () => beta.settings.report().files === 1 && beta.settings.report().sizeBytes === 1,
      );
      await beta.settings.afterOffline(pair.token);
      assert.equal((await pair.store.readValueKeys("jobs", "checkpoint/")).length, 2);
    },
  },
  {
    title: "what is too large is refused whole, and stored as soon as it fits",
    tell: async (pair) => {
      const alpha = pair.node("alpha");
      await pair.own("alpha");
      write(`${alpha.data}/a`, "a");
      await until("stored", () => numberOf(alpha) === 1);
      write(`${alpha.data}/huge`, Buffer.alloc(5 * MiB));
      const isTold = () =>
        alpha.settings.report().problems.some((each) => /^CHECKPOINT_TOO_LARGE: .*huge/.test(each));
      await until("told", isTold);
      assert.equal(alpha.settings.report().state, "failing");
      fs.truncateSync(`${alpha.data}/huge`, 10);
      await until(
        "stored",
        () => alpha.settings.report().files === 2 && alpha.settings.report().problems.length === 0,
      );
    },
  },
];

function testSettings(title: string, skip: string | false, open: Open): void {
  suite(`settings of a virtual server: ${title}`, { skip }, () => {
    for (const { title, tell } of STORIES)
      test(title, async (t) => {
        const directory = await mkdtemp(join(tmpdir(), "lockstep-test-settings-"));
        const stores = [await open(t), await open(t)] as const;
        const pair = new Pair(directory, stores);
        try {
          await tell(pair);
        } finally {
          // Before the stores, which the test's own end takes away.
          await pair.close();
          await rm(directory, { recursive: true, force: true });
        }
      });
  });
}

const program = findEtcd();
let etcd: EtcdCluster | null = null;
before(async () => {
  if (program !== null) etcd = await startEtcd(program, null, CALM_ELECTION);
});
after(() => etcd?.stop());

let clusters = 0;
const prefixes = new WeakMap<TestContext, string>();
testSettings(
  "etcd, three members",
  program === null && "etcd is not on this machine (Debian package etcd-server)",
  async (t) => {
    const prefix = prefixes.get(t) ?? `/settings-${clusters++}/`;
    prefixes.set(t, prefix);
    const coordination = openEtcd({
      endpoints: etcd?.endpoints ?? [],
      prefix,
      callMs: CALL_MS,
      clock: systemClock,
    });
    t.after(() => coordination.close());
    return coordination;
  },
);

const server = usePostgres();
const databases = new WeakMap<TestContext, ReturnType<typeof server.database>>();
testSettings("PostgreSQL", false, async (t) => {
  const database = databases.get(t) ?? server.database(t, { empty: true });
  databases.set(t, database);
  const { address, beforeClose } = await database;
  const coordination = await openPostgres({
    connection: address,
    callMs: CALL_MS,
    watchMs: 10,
    clock: systemClock,
  });
  beforeClose(() => coordination.close());
  return coordination;
});

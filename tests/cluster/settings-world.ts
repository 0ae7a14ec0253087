import { setImmediate as nextTurn } from "node:timers/promises";
import { type Coordination, ServerSettings } from "@lockstep/cluster";
import { DEFAULT_VIRTUAL_SERVER, type VirtualServerDefinition } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";
import { Prng, SimCrash } from "@lockstep/testing";
import {
  hash,
  mortal,
  ROOTS,
  SETTINGS_RULES,
  type SettingsRules,
  type Tree,
  treeOf,
  WorldClock,
  WorldDisk,
} from "./settings-disk.ts";
import { simulatedStore } from "./simulated-coordination.ts";

/**
 * A simulated virtual server whose settings follow it over three nodes that crash, lose power, sleep and wake as former
 * owners, on a store that loses answers and carries writes out late. Beside it a naive model: what the owner's files were
 * when the store had them, and every state since; nothing else may ever be found by a service that starts.
 */
export class SettingsViolation extends Error {}

export interface SettingsCounts {
  stored: number;
  taken: number;
  crashes: number;
  powerCuts: number;
  lostAnswers: number;
  lateWrites: number;
  fenced: number;
  keptCopies: number;
  moved: number;
}

const SERVER = "jobs";
const STEPS = 60;
const NAMES = ["a", "b", "sub/c", "sub/deep/d", "e"];
const WORDS = ["one", "two", "three", "four"];

const DEFINITION: VirtualServerDefinition = {
  ...DEFAULT_VIRTUAL_SERVER,
  name: SERVER,
  config: { path: "/etc/app/app.toml", hash: null },
  checkpoints: ["/etc/single.conf"],
};

interface Node {
  readonly name: string;
  readonly disk: WorldDisk;
  /** Its present life; null: its daemon is dead. */
  life: { readonly settings: ServerSettings; isDead: boolean } | null;
  /** Whether this node may hold something that nobody else has: then overwriting is reported. */
  mayDiffer: boolean;
}

export class SettingsWorld {
  readonly counts: SettingsCounts = {
    stored: 0,
    taken: 0,
    crashes: 0,
    powerCuts: 0,
    lostAnswers: 0,
    lateWrites: 0,
    fenced: 0,
    keptCopies: 0,
    moved: 0,
  };
  readonly #prng: Prng;
  readonly #rules: SettingsRules;
  readonly #clock = new WorldClock();
  readonly #store: Coordination = simulatedStore()();
  readonly #nodes: readonly Node[];
  readonly #late: (() => Promise<unknown>)[] = [];
  #token = 0;
  #owner: Node | null = null;
  /** What a service that starts may find: the last state that the store certainly has, and every one since. */
  #allowed: Tree[] = [""];
  #notes: { node: string; what: string; detail: string }[] = [];
  /** Hashes of contents that nobody but their author ever had. */
  readonly #foreign = new Set<string>();
  #foreigners = 0;
  #isCalm = false;

  constructor(seed: number, rules: SettingsRules = SETTINGS_RULES) {
    this.#prng = new Prng(seed);
    this.#rules = rules;
    this.#nodes = ["n0", "n1", "n2"].map((name) => {
      const disk = new WorldDisk(rules);
      for (const path of ["/data", "/etc", "/etc/app", "/private"]) disk.makeDirectory(path, 0o755);
      disk.settle();
      return { name, disk, life: null, mayDiffer: false };
    });
  }

  async run(): Promise<SettingsCounts> {
    for (let step = 0; step < STEPS; step++) await this.#step();
    // Everything healed: what the owner has reaches the next one.
    this.#isCalm = true;
    for (const late of this.#late.splice(0)) await late();
    await this.#takeOver(this.#pick());
    await this.#takeOver(this.#pick());
    return this.counts;
  }

  #pick(): Node {
    const node = this.#nodes[this.#prng.below(this.#nodes.length)];
    if (node === undefined) throw new Error("no node");
    return node;
  }

  async #step(): Promise<void> {
    const draw = this.#prng.next();
    const owner = this.#owner;
    if (draw < 0.1) await this.#late.splice(this.#prng.below(this.#late.length + 1), 1)[0]?.();
    if (owner === null || draw > 0.85) return this.#takeOver(this.#pick());
    if (draw < 0.45) this.#edit(owner);
    else if (draw < 0.7) await this.#flush(owner);
    else if (draw < 0.75) await this.#move(owner);
    else if (draw < 0.8) this.#editElsewhere(owner);
    else if (draw < 0.83) this.#crash(owner, this.#prng.chance(0.5));
    else await this.#wakeFormerOwners(owner);
  }

  /** The service writes its settings. `isForeign`: somebody else does, and nobody ever wrote that before. */
  #edit(node: Node, isForeign = false): void {
    const { disk } = node;
    const root = this.#prng.pick(ROOTS) ?? "";
    const name = root.endsWith(".conf") ? "" : `/${this.#prng.pick(NAMES)}`;
    const path = root + name;
    const word = this.#prng.chance(0.1) ? "" : `${this.#prng.pick(WORDS)} ${this.#prng.below(3)}`;
    const content = isForeign ? `foreign ${++this.#foreigners}` : word;
    if (isForeign) this.#foreign.add(hash(Buffer.from(content)));
    if (this.#prng.chance(0.25)) {
      if (disk.lstat(path)?.kind === "file") disk.unlink(path);
    } else {
      const above = path.split("/").slice(1, -1);
      for (let depth = 1; depth <= above.length; depth++) {
        const directory = `/${above.slice(0, depth).join("/")}`;
        if (disk.lstat(directory)?.kind === "file") return;
        if (disk.lstat(directory) === null) disk.makeDirectory(directory, 0o750);
      }
      if (disk.lstat(path)?.kind === "directory") return;
      if (disk.lstat(path) !== null) disk.unlink(path);
      disk.writeFile(path, Buffer.from(content), this.#prng.chance(0.5) ? 0o644 : 0o600);
    }
    if (node === this.#owner) this.#allowed.push(treeOf(disk));
    node.mayDiffer = true;
  }

  /** An administrator changes files where the service does not run. */
  #editElsewhere(owner: Node): void {
    const node = this.#pick();
    if (node !== owner && node.life?.isDead !== true) this.#edit(node, true);
  }

  /** Time for the owner to store what changed. */
  async #flush(owner: Node): Promise<void> {
    const death = this.#isCalm || !this.#prng.chance(0.15) ? null : 1 + this.#prng.below(25);
    if (death !== null) owner.disk.plan({ call: death, dies: true });
    await this.#pass(owner, 10);
    if (owner.disk.dead) return this.#crash(owner, this.#prng.chance(0.5));
    owner.disk.plan();
    if (owner.life?.settings.report().state !== "following") return;
    if (owner.life.settings.report().problems.length > 0) return;
    this.counts.stored += 1;
    this.#allowed = [treeOf(owner.disk)];
    owner.mayDiffer = false;
  }

  async #pass(_node: Node, rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      await nextTurn();
      this.#clock.advance(5_000);
    }
    await nextTurn();
  }

  async #settled<T>(promise: Promise<T>): Promise<T> {
    let isDone = false;
    const done = () => {
      isDone = true;
    };
    promise.then(done, done);
    for (let round = 0; !isDone; round++) {
      if (round > 2_000) throw new SettingsViolation("a call never ends");
      await nextTurn();
      if (!isDone) this.#clock.advance(100);
    }
    return promise;
  }

  #crash(node: Node, isPowerCut: boolean): void {
    this.counts.crashes += 1;
    if (node.life !== null) {
      node.life.isDead = true;
      // So that nothing of it waits on; whatever it still tries fails.
      void node.life.settings.close();
    }
    node.life = null;
    if (this.#owner === node) this.#owner = null;
    if (isPowerCut) {
      this.counts.powerCuts += 1;
      node.disk.cutPower(this.#prng);
      node.mayDiffer = true;
    } else node.disk.kill();
  }

  /** Those that still believe to be owners change files and try to store them. */
  async #wakeFormerOwners(owner: Node): Promise<void> {
    const before = await this.#stored();
    for (const node of this.#nodes) if (node !== owner && node.life !== null) this.#edit(node, true);
    const watched = this.#allowed.at(-1);
    await this.#pass(owner, 3);
    for (const node of this.#nodes)
      if (node !== owner && node.life?.settings.report().state === "fenced") this.counts.fenced += 1;
    const after = await this.#stored();
    // The owner itself may have stored meanwhile.
    const isOwners = this.#allowed.includes(after) || after === watched;
    if (after !== before && !isOwners) throw new SettingsViolation(`a former owner stored ${after}`);
  }

  async #move(owner: Node): Promise<void> {
    const { life } = owner;
    if (life === null) return;
    const present = treeOf(owner.disk);
    await this.#settled(life.settings.afterOffline(this.#token));
    const { problems, state } = life.settings.report();
    this.#owner = null;
    if (problems.length > 0 || state !== "idle") return;
    this.counts.moved += 1;
    this.#allowed = [present];
    owner.mayDiffer = false;
  }

  async #takeOver(node: Node): Promise<void> {
    const former = this.#owner;
    // A former owner sleeps on or is gone; either way it was not asked.
    if (former === node || (former !== null && !this.#isCalm && this.#prng.chance(0.3)))
      this.#crash(former, this.#prng.chance(0.3));
    this.#owner = null;
    await this.#take(node.name);
    for (let tries = 0; ; tries++) {
      if (tries > 60) throw new SettingsViolation("settings are never laid down");
      // A new life of a daemon takes anew: no two lives share a token.
      if (tries > 0 && node.life === null) await this.#take(node.name);
      const { life } = this.#revive(node);
      const isDoomed = !this.#isCalm && tries < 5 && this.#prng.chance(0.4);
      node.disk.plan(...(isDoomed ? [{ call: 1 + this.#prng.below(60), dies: true } as const] : []));
      this.#notes = [];
      // Only what is laid down now is promised to be durable, not what a service wrote there before.
      const isCutAfter = !this.#isCalm && this.#prng.chance(0.25);
      if (isCutAfter) node.disk.settle();
      const before = treeOf(node.disk);
      const differed = node.mayDiffer;
      // Whoever is first stores what it has.
      if ((await this.#stored()) === "") {
        this.#allowed.push(before);
        for (const hash of this.#foreign) if (before.includes(hash)) this.#foreign.delete(hash);
      }
      try {
        await this.#settled(life.settings.beforeOnline(this.#token));
      } catch (error) {
        if (node.disk.dead || error instanceof SimCrash) {
          this.#crash(node, this.#prng.chance(0.5));
          node.mayDiffer = differed || node.mayDiffer;
          continue;
        }
        if (error instanceof LockstepError && error.code === "COORDINATION_UNREACHABLE") continue;
        throw new SettingsViolation(`cannot be brought online: ${String(error)}`);
      }
      if (node.disk.dead) {
        this.#crash(node, false);
        continue;
      }
      node.disk.plan();
      await this.#judge(node, before, differed);
      if (isCutAfter) {
        this.#crash(node, true);
        const left = treeOf(node.disk);
        if (!this.#allowed.includes(left))
          throw new SettingsViolation(`a power cut after everything was laid down left ${left}`);
        continue;
      }
      this.#owner = node;
      this.counts.taken += 1;
      return;
    }
  }

  /** What a service that starts now finds. */
  async #judge(node: Node, before: Tree, differed: boolean): Promise<void> {
    const found = treeOf(node.disk);
    const stored = await this.#stored();
    if (stored !== "" && found !== stored)
      throw new SettingsViolation(`the store has ${stored}, the node ${found}`);
    if (stored !== "" && !this.#allowed.includes(found))
      throw new SettingsViolation(`laid down ${found}, which is none of ${JSON.stringify(this.#allowed)}`);
    const overwritten = this.#notes.filter(({ what }) => what === "settings-overwritten");
    if (!differed && overwritten.length > 0)
      throw new SettingsViolation(`reported without a reason: ${overwritten[0]?.detail}`);
    if (differed && before !== found) this.#judgeCopies(node, before, found);
    this.#allowed = [found];
    node.mayDiffer = false;
  }

  /** Each content that is gone was stored once, or has its copy. */
  #judgeCopies(node: Node, before: Tree, found: Tree): void {
    const kept = new Set(
      [...node.disk.tree("/private").keys()]
        .filter((path) => path.startsWith("overwritten/"))
        .map((path) => path.slice("overwritten/".length).slice(0, 16)),
    );
    for (const line of before.split("\n")) {
      const hash = line.split(" file ")[1]?.split(" ")[1] ?? "";
      const isTold = this.#notes.some(({ detail }) => detail.includes(hash));
      if (this.#foreign.has(hash) && !found.includes(line) && !found.includes(hash) && !isTold)
        throw new SettingsViolation(`${line} was overwritten and nobody was told`);
    }
    for (const { detail } of this.#notes.filter(({ what }) => what === "settings-overwritten")) {
      const hash = /known to be stored, ([0-9a-f]{12})/.exec(detail)?.[1];
      if (hash === undefined) continue;
      this.counts.keptCopies += 1;
      if (![...kept].some((each) => each.startsWith(hash)))
        throw new SettingsViolation(`no copy of ${detail}`);
      if (!before.includes(hash)) throw new SettingsViolation(`${hash} was never there: ${before}, ${found}`);
    }
  }

  async #take(name: string): Promise<void> {
    const seen = await this.#store.read(SERVER);
    this.#token += 1;
    const record = {
      node: name,
      instance: `${name}#${this.#token}`,
      token: this.#token,
      write: 1,
      next: null,
    };
    await this.#store.swap(SERVER, { expected: seen.revision, record, takes: true });
  }

  #revive(node: Node): { life: NonNullable<Node["life"]> } {
    if (node.life !== null && !node.life.isDead) return { life: node.life };
    const life: { settings: ServerSettings; isDead: boolean } = {
      isDead: false,
      settings: new ServerSettings({
        definition: DEFINITION,
        node: node.name,
        dataDirectory: "/data",
        directory: "/private",
        coordination: this.#faulty(() => life.isDead),
        disk: mortal(node.disk, () => life.isDead),
        clock: this.#clock,
        listener: {
          noted: ({ what, detail }) => this.#notes.push({ node: node.name, what, detail }),
          changed: () => {},
        },
        watch: () => ({ follow: () => false, close: () => {} }),
        adopt: () => {},
      }),
    };
    node.life = life;
    return { life };
  }

  /** The store as one life of one node sees it. */
  #faulty(isDead: () => boolean): Coordination {
    const unreachable = () => new LockstepError("COORDINATION_UNREACHABLE", "simulated");
    const fails = () => {
      if (isDead()) throw new SimCrash();
      return !this.#isCalm && this.#prng.chance(0.08);
    };
    const held: Map<string, string | null>[] = [];
    const write = async (token: number, values: ReadonlyMap<string, string | null>) => {
      const shown = this.#rules.token ? token : ((await this.#store.read(SERVER)).record?.token ?? token);
      return this.#store.writeGuarded(SERVER, shown, values);
    };
    return {
      ...this.#store,
      readValues: async (name, prefix) => {
        if (fails()) throw unreachable();
        return this.#store.readValues(name, prefix);
      },
      readValueKeys: async (name, prefix) => {
        if (fails()) throw unreachable();
        return this.#store.readValueKeys(name, prefix);
      },
      writeGuarded: async (_, token, values) => {
        if (!this.#rules.contentsFirst) {
          const isManifest = (key: string) => key.includes("/manifest/");
          const pieces = new Map([...values].filter(([key]) => !isManifest(key)));
          const manifests = new Map([...values].filter(([key]) => isManifest(key)));
          held.push(pieces);
          if (!(await write(token, manifests))) return false;
          for (const batch of held.splice(0)) {
            if (fails()) throw unreachable();
            await write(token, batch);
          }
          return true;
        }
        if (!fails()) return write(token, values);
        this.counts.lostAnswers += 1;
        const how = this.#prng.below(3);
        if (how === 0) await write(token, values);
        if (how === 1) {
          this.counts.lateWrites += 1;
          this.#late.push(() => write(token, values));
        }
        throw unreachable();
      },
    };
  }

  /** What the store says, read by nobody's code but this: empty when it has nothing. */
  async #stored(): Promise<Tree> {
    const values = await this.#store.readValues(SERVER);
    const newest = [...values.keys()]
      .filter((key) => key.startsWith("checkpoint/manifest/"))
      .sort()
      .at(-1);
    if (newest === undefined) return "";
    const places: Readonly<Record<string, string>> = { data: "/data/settings", config: "/etc/app/settings" };
    const { entries } = JSON.parse(values.get(newest) ?? "") as { entries: ManifestLine[] };
    const lines = entries.map(({ root, path, kind, mode, pieces }) => {
      const bytes = Buffer.concat(
        pieces.map((key) => {
          const text = values.get(key);
          if (text === undefined) throw new SettingsViolation(`the store names ${key} and has it not`);
          return Buffer.from(text, "base64");
        }),
      );
      const full = `${places[root] ?? root}${path === "" ? "" : `/${path}`}`;
      return `${full} ${kind} ${mode.toString(8)}${kind === "file" ? ` ${hash(bytes)}` : ""}`;
    });
    return lines.sort().join("\n");
  }
}

interface ManifestLine {
  readonly root: string;
  readonly path: string;
  readonly kind: string;
  readonly mode: number;
  readonly pieces: readonly string[];
}

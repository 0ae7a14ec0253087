import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import { install, update } from "@lockstep/updater";
import { makeWorld, treeOf } from "../updater/world.ts";

/** B8 and C1: files that are swapped between the look at them and their use, by a process that does nothing else. */
const targets = ["role:A"];
const NOBODY = 65_534;
const EVIL = "EVIL!!".repeat(50);
const needsRoot = process.getuid?.() === 0 ? false : "needs root, to have a second user";

interface Racer {
  /** Whether it has tried more than a thousand times by now: on a busy machine it may not have had its turn yet. */
  hasTriedOften(): boolean;
  /** Ends it; how often it tried, and how often it could. */
  end(): Promise<{ tried: number; done: number }>;
}

async function race(t: TestContext, user: number, args: readonly string[]): Promise<Racer> {
  const own = mkdtempSync(join(tmpdir(), "lockstep-racer-"));
  chmodSync(own, 0o777);
  writeFileSync(join(own, "evil"), EVIL, { mode: 0o644 });
  // A copy, because another user need not get to where this project stands.
  copyFileSync(join(import.meta.dirname, "racer.ts"), join(own, "racer.ts"));
  const child = spawn(process.execPath, [join(own, "racer.ts"), ...args], {
    cwd: own,
    stdio: ["ignore", "pipe", "inherit"],
    ...(user === 0 ? {} : { uid: user, gid: user }),
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const closed = once(child, "close");
  t.after(() => {
    child.kill("SIGKILL");
    rmSync(own, { recursive: true, force: true });
  });
  while (!said.includes("ready")) {
    assert.equal(child.exitCode, null, "the racer could not be started");
    await Promise.race([once(child.stdout, "data"), closed]);
  }
  return {
    hasTriedOften: () => said.includes("often"),
    end: async () => {
      writeFileSync(join(own, "stop"), "");
      await closed;
      return JSON.parse(said.trimEnd().split("\n").at(-1) ?? "{}") as { tried: number; done: number };
    },
  };
}

interface Fire {
  readonly turns: number;
  readonly wrong: number;
  readonly hasTriedOften: boolean;
}

/** Runs updates while somebody swaps what he can, until that is enough; the contents that got in wrong. */
async function updatesUnderFire(t: TestContext, user: number, isEnough: (fire: Fire) => boolean) {
  const world = await makeWorld(t);
  const content = (turn: number) => `good ${turn} `.repeat(100);
  const release = (turn: number) => ({
    program: { content: content(turn), targets },
    ...Object.fromEntries(
      Array.from(
        { length: 20 },
        (_, i) => [`lib/${i}`, { content: `${content(turn)}${i}`, targets }] as const,
      ),
    ),
  });
  world.hub.publish(release(0));
  const directory = join(world.root, "a");
  chmodSync(world.root, 0o755);
  await install(directory, world.installOptions(["A"]));
  chmodSync(directory, 0o755);
  const racer = await race(t, user, ["swap", directory, EVIL]);
  let wrong = 0;
  const isOver = (turns: number) => isEnough({ turns, wrong, hasTriedOften: racer.hasTriedOften() });
  for (let turn = 1; !isOver(turn - 1); turn++) {
    world.hub.publish(release(turn));
    const updated = await update(directory, world.options()).then(
      () => true,
      () => false,
    );
    if (
      !updated ||
      Object.values(treeOf(directory)).some((text) => text.includes("EVIL") || text === "a link")
    )
      wrong++;
  }
  const { tried, done } = await racer.end();
  return { wrong, tried, done, directory };
}

test("B8: another user swaps nothing between check and use, however often he tries", {
  skip: needsRoot,
}, async (t) => {
  const { wrong, tried, done, directory } = await updatesUnderFire(
    t,
    NOBODY,
    ({ turns, hasTriedOften }) => turns >= 6 && hasTriedOften,
  );
  assert.deepEqual({ wrong, done }, { wrong: 0, done: 0 });
  assert.ok(tried > 1000, `${tried} tries`);
  assert.equal(lstatSync(join(directory, ".lockstep")).mode & 0o777, 0o700);
});

test("B8: the control: where he may write, he gets his bytes in", { skip: needsRoot }, async (t) => {
  const { wrong, done } = await updatesUnderFire(t, 0, (fire) => fire.wrong > 0);
  assert.ok(wrong > 0 && done > 0, `${wrong} wrong, ${done} swaps`);
});

test("B8: a local file that changes while it is copied is never installed under another name", {
  skip: needsRoot,
}, async (t) => {
  const world = await makeWorld(t);
  const good = "as it was released ".repeat(3000);
  const evil = good.replaceAll("released", "tampered");
  world.hub.publish({ data: { content: good, targets } });
  const directory = join(world.root, "a");
  chmodSync(world.root, 0o755);
  await install(directory, world.installOptions(["A"]));
  chmodSync(directory, 0o755);
  // A file that belongs to the user as whom the product runs.
  chownSync(join(directory, "data"), NOBODY, NOBODY);
  const racer = await race(t, NOBODY, ["flip", join(directory, "data"), good, evil]);
  const places: Record<string, { content: string; targets: string[] }> = { data: { content: good, targets } };
  const control = join(world.root, "control");
  mkdirSync(control);
  let controlWrong = 0;
  for (let turn = 0; turn < 12 || controlWrong === 0 || !racer.hasTriedOften(); turn++) {
    // The control: looked at, then copied by its name.
    for (let round = 0; round < 50; round++) {
      if (readFileSync(join(directory, "data"), "utf8") !== good) continue;
      copyFileSync(join(directory, "data"), join(control, "copy"));
      if (readFileSync(join(control, "copy"), "utf8") !== good) controlWrong++;
    }
    places[`copy-${turn}`] = { content: good, targets };
    world.hub.publish(places);
    const isDone = await update(directory, world.options({ edits: "keep" } as object)).then(
      () => true,
      (error: unknown) => {
        // A file that never stands still is said, and nothing has changed.
        if (!isLockstepError(error, "INSTALLATION_FILE_IN_USE")) throw error;
        return false;
      },
    );
    const copy = join(directory, `copy-${turn}`);
    if (isDone || existsSync(copy)) assert.equal(readFileSync(copy, "utf8"), good, `turn ${turn}`);
    assert.ok(!existsSync(join(directory, ".lockstep/commit.json")));
  }
  const { done } = await racer.end();
  assert.ok(done > 1000, `${done} swaps`);
  assert.ok(controlWrong > 0, "the control was never caught");
});

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";

const root = join(import.meta.dirname, "..", "..");

/** Two versions of a product in a cache, so that nothing is fetched, and a place for temporary files. */
function prepare(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-house-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const release = (version: string, files: Record<string, string>) => {
    for (const [path, text] of Object.entries(files)) {
      const file = join(directory, "cache", "lockstep", "packages", `sample@${version}`, path);
      mkdirSync(join(file, ".."), { recursive: true });
      writeFileSync(file, text);
    }
  };
  const many = (text: string) =>
    Object.fromEntries(
      Array.from({ length: 40 }, (_, i) => [
        `lib/${i}.${i % 2 ? "js" : "d.ts"}`,
        `${i} ${i % 5 ? "" : text}`,
      ]),
    );
  release("1.0.0", { ...many("one"), "package.json": "1", "README.md": "one", "old.js": "old" });
  release("1.1.0", { ...many("two"), "package.json": "2", "README.md": "two", "new.js": "new" });
  mkdirSync(join(directory, "tmp"));
  return directory;
}

/** Presses Ctrl-C in the very moment in which the demonstration writes these words: a test that looks on may be too late. */
function pressing(words: string): string {
  const program = `
    const write = process.stdout.write.bind(process.stdout);
    let said = "";
    process.stdout.write = (chunk, ...more) => {
      const before = said;
      said += chunk;
      const isTaken = write(chunk, ...more);
      const words = ${JSON.stringify(words)};
      if (!before.includes(words) && said.includes(words)) process.kill(process.pid, "SIGINT");
      return isTaken;
    };`;
  return `data:text/javascript,${encodeURIComponent(program)}`;
}

function start(directory: string, ...options: string[]): ChildProcess {
  const demo = join(root, "scripts", "demo.ts");
  return spawn(process.execPath, [...options, demo, "--from", "sample@1.0.0", "--to", "sample@1.1.0"], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      XDG_CACHE_HOME: join(directory, "cache"),
      TMPDIR: join(directory, "tmp"),
      NO_COLOR: "1",
    },
  });
}

/** What the demonstration left: directories of its own, and processes that work in one. */
function leftovers(directory: string): string[] {
  const here = join(directory, "tmp");
  const directories = readdirSync(here).filter((name) => name.startsWith("lockstep-demo-"));
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`).startsWith(here);
      } catch {
        return false;
      }
    });
  return [...directories, ...processes.map((pid) => `process ${pid}`)];
}

test("the demonstration shows both installations following, and leaves nothing", async (t) => {
  const directory = prepare(t);
  const child = start(directory);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => (output += chunk));
  const [status] = await once(child, "close");
  assert.equal(status, 0, output);
  assert.equal(output.match(/none missing, none more, every byte as published/g)?.length, 4, output);
  assert.match(output, /in step with software revision 3/);
  assert.deepEqual(leftovers(directory), []);
});

for (const moment of ["A hub, with a database", "Install a server", "watch them follow"])
  test(`stopped by Ctrl-C at "${moment}", the demonstration leaves nothing`, async (t) => {
    const directory = prepare(t);
    const child = start(directory, "--import", pressing(moment));
    let output = "";
    child.stderr?.resume();
    child.stdout?.on("data", (chunk) => (output += chunk));
    const [status] = await once(child, "close");
    assert.equal(status, 130, output);
    assert.deepEqual(leftovers(directory), []);
  });

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import test, { type TestContext } from "node:test";
import { isNewEnough } from "../../scripts/pinned-node.mjs";

const root = join(import.meta.dirname, "..", "..");

/** The machine's own Node, where it is too old for our sources: then `lockstep` has to hand over. */
function findOldNode(): string | null {
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const node = join(directory, "node");
    const { status, stdout } = spawnSync(node, ["--version"], { encoding: "utf8" });
    if (status === 0 && !isNewEnough(stdout.trim())) return node;
  }
  return null;
}

/** `lockstep` with a program that shows how it was started, beside the real node_modules. */
function prepare(t: TestContext, program: string): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-bin-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, "packages", "cli", "src"), { recursive: true });
  cpSync(join(root, "packages", "cli", "bin"), join(directory, "packages", "cli", "bin"), {
    recursive: true,
  });
  writeFileSync(join(directory, "package.json"), '{"type":"module"}');
  writeFileSync(join(directory, "packages", "cli", "src", "main.ts"), program);
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
  return join(directory, "packages", "cli", "bin", "lockstep.mjs");
}

const starts = [
  { by: "a Node that is new enough", node: process.execPath },
  { by: "an old Node", node: findOldNode() },
];

for (const { by, node } of starts) {
  const skip = node === null && "this machine has no Node older than ours";
  const file = node ?? "";

  test(`started by ${by}, arguments, input, output and exit status pass through`, { skip }, (t) => {
    const bin = prepare(
      t,
      `let text: string = "";
       for await (const chunk of process.stdin) text += chunk;
       console.log(JSON.stringify([process.argv.slice(2), text]));
       console.error("remark");
       process.exitCode = 10;`,
    );
    const { status, stdout, stderr } = spawnSync(file, [bin, "plan", "a b", "--x=*", ""], {
      encoding: "utf8",
      input: "typed",
    });
    assert.deepEqual(JSON.parse(stdout), [["plan", "a b", "--x=*", ""], "typed"]);
    assert.equal(stderr, "remark\n");
    assert.equal(status, 10);
  });

  test(`started by ${by}, a signal reaches the program, which decides how it ends`, { skip }, async (t) => {
    const bin = prepare(
      t,
      `process.on("SIGTERM", () => process.exit(7));
       setInterval(() => {}, 1000);
       console.log("ready");`,
    );
    const child = spawn(file, [bin], { stdio: ["ignore", "pipe", "inherit"] });
    await once(child.stdout, "data");
    child.kill("SIGTERM");
    assert.deepEqual(await once(child, "exit"), [7, null]);
  });

  test(`started by ${by}, a death by signal is passed on as such`, { skip }, async (t) => {
    const bin = prepare(t, 'process.kill(process.pid, "SIGKILL");');
    const child = spawn(file, [bin], { stdio: "inherit" });
    assert.deepEqual(await once(child, "exit"), [null, "SIGKILL"]);
  });
}

test("an old Node without a pinned one beside it is told what is missing", {
  skip: findOldNode() === null && "this machine has no Node older than ours",
}, (t) => {
  const bin = prepare(t, "");
  rmSync(join(bin, "..", "..", "..", "..", "node_modules"));
  const { status, stderr } = spawnSync(findOldNode() ?? "", [bin], { encoding: "utf8" });
  assert.equal(status, 1);
  assert.match(stderr, /needs Node 24\.15 or newer/);
});

test("compiled code is kept only where nobody else can write", (t) => {
  const bin = prepare(t, "console.log(JSON.stringify(process.env.none ?? null));");
  const cache = mkdtempSync(join(tmpdir(), "lockstep-cache-"));
  t.after(() => rmSync(cache, { recursive: true, force: true }));
  rmSync(join(bin, "..", "..", "..", "..", "node_modules"));
  mkdirSync(join(cache, "lockstep", "code"), { recursive: true, mode: 0o700 });
  const start = (mode: string) => {
    spawnSync("chmod", [mode, join(cache, "lockstep", "code")]);
    const { stderr } = spawnSync(process.execPath, [bin], {
      encoding: "utf8",
      env: { ...process.env, XDG_CACHE_HOME: cache, NODE_DEBUG_NATIVE: "COMPILE_CACHE" },
    });
    return stderr.includes(cache);
  };
  assert.equal(start("0777"), false);
  assert.equal(start("0700"), true);
});

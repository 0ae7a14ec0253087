import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";
import { spawnLockstepWorker } from "./command-worker.ts";
import { aStep, QUEUE, run, temporaryDirectory } from "./one-step.ts";
import { isAlive, killQuietly, until } from "./service-world.ts";

const node = process.execPath;
const script = (text: string, more: object = {}) =>
  aStep("Command.Run", { program: node, arguments: ["-e", text], ...more });

/** Waits until the file holds something; there is no time limit but the test runner's. */
async function textOf(file: string): Promise<string> {
  for (;;) {
    const text = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
    if (text !== "") return text;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A zombie that nobody fetched has ended as well. */
const hasEnded = (pid: number) => until(() => !isAlive(pid));

test("arguments reach the program as they are; no shell reads them", async (t) => {
  const odd = ["a b", "$(touch /tmp/never)", "; rm -rf x", "`id`", "", "*", "é\n\"'"];
  const ended = await run(
    t,
    aStep("Command.Run", {
      program: node,
      arguments: ["-e", "console.log(JSON.stringify({ args: process.argv.slice(1) }))", "--", ...odd],
      result: "json",
    }),
  );
  assert.equal(ended.outcome, "success", ended.message);
  assert.deepEqual(ended.output, { args: odd, exitCode: 0 });
});

test("the environment is clean and has what is given, the key, the step and the queue", async (t) => {
  process.env.LOCKSTEP_TOKEN = "token-of-the-hub";
  process.env.OTHER_SECRET = "kept";
  process.env.LOCKSTEP_JOB_WORKER = "mark";
  process.env.PASSED = "passed";
  t.after(() => {
    for (const name of ["LOCKSTEP_TOKEN", "OTHER_SECRET", "PASSED", "LOCKSTEP_JOB_WORKER"])
      delete process.env[name];
  });
  const ended = await run(
    t,
    script("console.log(JSON.stringify({ env: process.env, cwd: process.cwd() }))", {
      result: "json",
      environment: { GIVEN: "here" },
      passEnvironment: ["PASSED"],
    }),
    { environment: { SLOT: "external" } },
  );
  const env = ended.output.env as Record<string, string>;
  const seen = Object.fromEntries(
    [
      "LOCKSTEP_TOKEN",
      "OTHER_SECRET",
      "PASSED",
      "GIVEN",
      "SLOT",
      "LOCKSTEP_IDEMPOTENCY_KEY",
      "LOCKSTEP_STEP",
      "LOCKSTEP_QUEUE",
      "LOCKSTEP_JOB_WORKER",
    ].map((name) => [name, env[name]]),
  );
  assert.deepEqual(seen, {
    LOCKSTEP_TOKEN: undefined,
    OTHER_SECRET: undefined,
    PASSED: "passed",
    GIVEN: "here",
    SLOT: "external",
    LOCKSTEP_IDEMPOTENCY_KEY: "key-of-step-7",
    LOCKSTEP_STEP: "7",
    LOCKSTEP_QUEUE: QUEUE,
    LOCKSTEP_JOB_WORKER: "mark",
  });
  assert.equal(env.PATH, process.env.PATH);
  assert.equal(ended.output.cwd, env.LOCKSTEP_DIRECTORY);
  assert.deepEqual(ended.left, [], "the private directory is removed");
});

test("the service's own variables can neither be set nor passed", async (t) => {
  const ended = await run(
    t,
    script("", { environment: { LOCKSTEP_STEP: "8" }, passEnvironment: ["LOCKSTEP_TOKEN"] }),
  );
  assert.equal(ended.outcome, "error");
  assert.equal(ended.permanent, true);
  assert.match(
    ended.message,
    /^JOB_PARAMETERS_INVALID: .*2 faults: environment must not set LOCKSTEP_STEP.*passEnvironment/s,
  );
});

test("standard input arrives, and exit codes decide", async (t) => {
  const echo = `process.stdin.on("data", (d) => process.stdout.write(d)).on("end", () => process.exit(3))`;
  const ended = await run(t, script(echo, { input: "hello", expectedExitCodes: [3], result: "text" }));
  assert.deepEqual([ended.outcome, ended.output], ["success", { stdout: "hello", exitCode: 3 }]);
  const other = await run(t, script(echo, { input: "said before", permanentExitCodes: [3] }));
  assert.deepEqual([other.outcome, other.permanent, other.output], ["error", true, { exitCode: 3 }]);
  assert.match(other.message, /ended with status 3, expected 0: said before$/);
});

test("a program that reads no input of a megabyte does no harm", async (t) => {
  const ended = await run(t, script("process.exit(0)", { input: "x".repeat(1 << 20) }));
  assert.equal(ended.outcome, "success", ended.message);
});

test("a pattern gives parameters; one that would think for years is stopped", async (t) => {
  const found = await run(
    t,
    script(`console.log("started\\nid=42 host=a")`, {
      result: "pattern",
      pattern: "id=(?<id>\\d+) host=(?<host>\\w+)",
    }),
  );
  assert.deepEqual(found.output, { id: "42", host: "a", exitCode: 0 });
  const absent = await run(t, script("", { result: "pattern", pattern: "id=(?<id>\\d+)" }));
  assert.match(absent.message, /does not match/);
  const slow = await run(
    t,
    script(`console.log("a".repeat(50) + "b")`, { result: "pattern", pattern: "^(?<all>(a+)+)$" }),
  );
  assert.match(slow.message, /no answer within/);
});

test("of much output the beginning and the end are kept", async (t) => {
  const ended = await run(
    t,
    script(`process.stdout.write("first\\n" + "x".repeat(3_000_000) + "\\nlast")`, { outputBytes: 1000 }),
  );
  assert.equal(ended.outcome, "success");
  assert.match(ended.log, /first\nx+\n… 2999011 bytes left out …\nx+\nlast$/);
  assert.ok(ended.log.length < 1_200);
  const json = await run(t, script(`console.log("1".repeat(2000))`, { outputBytes: 1000, result: "json" }));
  assert.match(json.message, /larger than outputBytes/);
});

test("hidden values show nowhere, however the program prints them", async (t) => {
  const secret = 'p4ss/"word\\ é+&';
  const prints = `
    const s = process.argv[1];
    console.log(s, encodeURIComponent(s), JSON.stringify({ s }), Buffer.from(s).toString("hex"));
    console.log(Buffer.from("user:" + s).toString("base64"), Buffer.from("x" + s + "yz").toString("base64url"));
    console.error("url http://h/?" + new URLSearchParams({ s }) + " " + "-".repeat(20000) + s + "-".repeat(20000));
    process.exit(process.argv[2] === "fail" ? 1 : 0)`;
  for (const how of ["fail", "succeed"]) {
    const ended = await run(
      t,
      aStep(
        "Command.Run",
        { program: node, arguments: ["-e", prints, secret, how], result: "text", outputBytes: 39_000 },
        { hidden: ["arguments"] },
      ),
    );
    const all = JSON.stringify([ended.log, ended.message, ended.output]);
    const bytes = Buffer.from(secret);
    for (const form of [
      "p4ss",
      "word",
      encodeURIComponent(secret),
      bytes.toString("hex"),
      Buffer.from(`user:${secret}`).toString("base64").slice(8, -4),
      Buffer.from(`x${secret}`).toString("base64url").slice(2, -3),
    ])
      assert.ok(!all.includes(form), `${how}: ${form} in ${all.slice(0, 2000)}`);
    assert.match(all, /<HIDDEN>/);
  }
});

test("a hidden value at the place where output is cut does not show in half", async (t) => {
  const secret = "SECRET-0123456789-0123456789";
  for (let at = 470; at < 502; at += 3) {
    const ended = await run(
      t,
      aStep(
        "Command.Run",
        {
          program: node,
          arguments: [
            "-e",
            `const s = process.env.S; process.stdout.write("-".repeat(${at}) + s + "-".repeat(50000) + s + "-".repeat(${at}))`,
          ],
          environment: { S: secret },
          outputBytes: 1000,
        },
        { hidden: ["environment"] },
      ),
    );
    assert.doesNotMatch(ended.log, /SECR|\d{4}-|-0123(?! )/);
  }
});

test("a program that does not exist, a directory that does not, and a NUL are permanent errors", async (t) => {
  for (const parameters of [
    { program: "no-such-program-here" },
    { program: node, directory: "/no/such/directory" },
    { program: node, arguments: ["a\0b"] },
    { program: "" },
  ]) {
    const ended = await run(t, aStep("Command.Run", parameters));
    assert.deepEqual([ended.outcome, ended.permanent], ["error", true], ended.message);
  }
});

test("scripts run by the shell that is named, from a private file, never through -c", async (t) => {
  const sh = await run(
    t,
    aStep("Command.Script", {
      shell: "sh",
      script: `printf '%s|%s|' "$0" "$1"; ls -l "$0" | cut -c1-10; ls -ld "$LOCKSTEP_DIRECTORY" | cut -c1-10`,
      arguments: ["$(id)"],
      result: "text",
    }),
  );
  assert.match(String(sh.output.stdout), /\/step-7-\w+\/script\.sh\|\$\(id\)\|-rw-------\ndrwx------$/);
  const bash = await run(
    t,
    aStep("Command.Script", { shell: "bash", script: "a=(1 2 3); echo ${#a[@]}", result: "text" }),
  );
  assert.equal(bash.output.stdout, "3");
  const own = await run(
    t,
    aStep("Command.Script", {
      shell: "node",
      script: `console.log(JSON.stringify({ v: await 5 }))`,
      result: "json",
    }),
  );
  assert.equal(own.output.v, 5);
  assert.deepEqual(own.left, []);
  const wrong = await run(t, aStep("Command.Script", { shell: "cmd", script: "dir" }));
  assert.match(wrong.message, /shell must be one of sh, bash, pwsh, node/);
});

test("the time limit ends the program with its grandchildren", async (t) => {
  const file = join(await temporaryDirectory(t), "pid");
  // A limit that comes before there is a grandchild shows nothing of it.
  for (let seconds = 0.5; !existsSync(file); seconds *= 4) {
    const ended = await run(
      t,
      aStep(
        "Command.Script",
        {
          shell: "sh",
          script: `trap '' TERM; (trap '' TERM; sh -c 'echo $$ > "$0.new"; mv "$0.new" "$0"; while :; do sleep 1; done' "$1") & wait`,
          arguments: [file],
        },
        { timeLimitMs: seconds * 1000 },
      ),
    );
    assert.deepEqual([ended.outcome, ended.permanent], ["error", false]);
    assert.match(ended.message, new RegExp(`^JOB_TIME_LIMIT: .* ${seconds} s`));
    assert.deepEqual(ended.left, []);
  }
  assert.ok(await hasEnded(Number(await textOf(file))));
});

test("what a program leaves running in its group ends with the step", async (t) => {
  const file = join(await temporaryDirectory(t), "pid");
  const ended = await run(
    t,
    aStep("Command.Script", { shell: "sh", script: `sleep 1000 & echo $! > "$1"`, arguments: [file] }),
  );
  assert.equal(ended.outcome, "success", ended.message);
  assert.ok(await hasEnded(Number(await textOf(file))));
});

test("a shutdown gives the step back where it may run twice, and ends it with an error where not", async (t) => {
  for (const [onCrash, outcome] of [
    ["rerun", "given-back"],
    ["freeze", "error"],
  ] as const) {
    const order = new StopOrder();
    const file = join(await temporaryDirectory(t), "pid");
    const running = run(
      t,
      aStep(
        "Command.Script",
        { shell: "sh", script: `echo $$ > "$1"; exec sleep 1000`, arguments: [file] },
        { onCrash },
      ),
      { stop: order },
    );
    const pid = Number(await textOf(file));
    order.give(new LockstepError("INTERRUPTED", "the service stops"));
    const ended = await running;
    assert.equal(ended.outcome, outcome, ended.message);
    assert.ok(await hasEnded(pid));
  }
});

test("killing the worker ends the programs that it started, grandchildren included", async (t) => {
  const directory = await temporaryDirectory(t);
  const [child, grandchild] = [join(directory, "child"), join(directory, "grandchild")];
  const text = `sh -c 'echo $$ > "$0"; sleep 1000; :' "$2" & echo $$ > "$1"; wait`;
  const worker = spawnLockstepWorker(
    t,
    aStep("Command.Script", { shell: "sh", script: text, arguments: [child, grandchild] }),
    directory,
  );
  const pids = [Number(await textOf(child)), Number(await textOf(grandchild))];
  t.after(() => {
    for (const pid of pids) killQuietly(pid);
  });
  worker.kill("SIGKILL");
  for (const pid of pids) assert.ok(await hasEnded(pid));
});

test("a file that cannot be removed from outside does not keep the private directory", async (t) => {
  const ended = await run(
    t,
    aStep("Command.Script", { shell: "sh", script: `mkdir -p a/b; touch a/b/c; chmod 000 a/b a` }),
  );
  assert.deepEqual([ended.outcome, ended.left], ["success", []], ended.log);
});

test("a program that ends by a signal of its own is an error that may be tried again", async (t) => {
  const ended = await run(t, script("process.kill(process.pid, 'SIGKILL')"));
  assert.deepEqual([ended.outcome, ended.permanent], ["error", false]);
  assert.match(ended.message, /was ended by SIGKILL/);
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { documentOf, type ErrorDocument, ended, lockstep, start, temporaryDirectory } from "./lockstep.ts";

const COMMANDS = [
  ...["hub", "setup", "load", "files", "revision", "keys", "roles", "settings", "dbqueue", "job", "fleet"],
  ...["node", "cluster"],
  ...[
    "install",
    "check",
    "plan",
    "update",
    "verify",
    "repair",
    "rollback",
    "log",
    "trust",
    "configure",
    "launch",
    "agent",
    "doctor",
  ],
];
/** Nothing listens on it: connecting fails at once, everywhere. */
const NO_HUB = "http://127.0.0.1:1";

test("help and version are data: on standard output, with exit status 0", async () => {
  const help = await lockstep(["--help"]);
  assert.equal(help.status, 0);
  assert.equal(help.stderr, "");
  for (const command of COMMANDS) assert.match(help.stdout, new RegExp(`^  ${command}\\b`, "m"));
  const version = await lockstep(["--version"]);
  assert.equal(version.stdout, "0.1.0\n");
  assert.equal(version.status, 0);
});

test("every command has a help that names its options", async () => {
  for (const command of COMMANDS) {
    const run = await lockstep([command, "--help"]);
    assert.equal(run.status, 0, command);
    assert.equal(run.stderr, "", command);
    assert.match(run.stdout, new RegExp(`^Usage: lockstep ${command}`), command);
  }
});

test("the reference names every command, subcommand and option that there is", async () => {
  const reference = readFileSync(resolve(import.meta.dirname, "../../docs/reference/commands.md"), "utf8");
  const lacking: string[] = [];
  for (const command of COMMANDS) {
    const { stdout } = await lockstep([command, "--help"]);
    const subcommands = [...stdout.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1] ?? "");
    const inner = /^Commands:$/m.test(stdout) ? subcommands.filter((name) => name !== "help") : [];
    for (const words of [[command], ...inner.map((name) => [command, name])]) {
      const help = (await lockstep([...words, "--help"])).stdout;
      if (!reference.includes(words.join(" "))) lacking.push(words.join(" "));
      for (const [, option = ""] of help.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm))
        if (option !== "--help" && !reference.includes(`\`${option}`) && !reference.includes(`, ${option}`))
          lacking.push(`${words.join(" ")} ${option}`);
    }
  }
  assert.deepEqual(lacking, []);
});

test("wrong usage ends with 2 and its code, and says nothing on standard output", async () => {
  const wrong = [
    ["nonsense"],
    ["load"],
    ["load", ".", "--no-such-option"],
    ["files", "lst"],
    ["files"],
    ["revision", "diff", "1"],
    ["revision", "show", "one"],
    ["revision", "show", "-1"],
    ["settings", "set", "Common/AutoUpdate", "--hub", NO_HUB],
    ["hub"],
    ["hub", "--data", "x", "--tls-cert", "y"],
    ["check"],
    ["check", "a", "b"],
    ["roles", "--hub", "not a url://"],
    ["roles"],
  ];
  for (const args of wrong) {
    const run = await lockstep(args);
    assert.equal(run.status, 2, `${args.join(" ")}\n${run.stderr}`);
    assert.equal(run.stdout, "", args.join(" "));
    if (args[0] !== "files" || args.length > 1) assert.match(run.stderr, /^error USAGE: /, args.join(" "));
  }
});

test("without any word the help goes to standard error, because nothing was asked for", async () => {
  const run = await lockstep([]);
  assert.deepEqual([run.status, run.stdout], [2, ""]);
  assert.match(run.stderr, /^Usage: lockstep/);
});

test("an error names its code, what was expected and found, a next step and where to read on", async () => {
  const run = await lockstep(["hub", "status", "--hub", NO_HUB]);
  assert.equal(run.status, 1);
  assert.equal(run.stdout, "");
  assert.match(run.stderr, /^error HUB_UNREACHABLE: .+\n {2}expected: .+\n {2}found: {4}.+\n/);
  assert.match(run.stderr, /\n {2}hint: .+\n {2}see docs\/reference\/errors\.md#HUB_UNREACHABLE\n$/);
});

test("with --json the error is the one document, and the words stay on standard error", async () => {
  const run = await lockstep(["hub", "status", "--hub", NO_HUB, "--json"]);
  assert.equal(run.status, 1);
  assert.equal(documentOf<ErrorDocument>(run).error.code, "HUB_UNREACHABLE");
  assert.match(run.stderr, /^error HUB_UNREACHABLE: /);
});

test("every code that a command can name has its section in the list of errors", async () => {
  const { ERRORS } = await import("@lockstep/protocol");
  const text = readFileSync(resolve(import.meta.dirname, "../../docs/reference/errors.md"), "utf8");
  for (const code of [
    "USAGE",
    "CONFIRMATION_REQUIRED",
    "CANCELLED",
    "SETUP_INCOMPLETE",
    "EXPORT_TARGET_REFUSED",
  ]) {
    assert.ok(Object.hasOwn(ERRORS, code), code);
    assert.match(text, new RegExp(`^## ${code}$`, "m"));
  }
});

test("pipes get no colour; NO_COLOR and FORCE_COLOR are obeyed", async () => {
  const introducer = "\u001b[";
  const args = ["hub", "status", "--hub", NO_HUB];
  assert.equal((await lockstep(args)).stderr.includes(introducer), false);
  assert.equal((await lockstep(args, { env: { FORCE_COLOR: "1" } })).stderr.includes(introducer), true);
  assert.equal(
    (await lockstep(args, { env: { FORCE_COLOR: "1", NO_COLOR: "1" } })).stderr.includes(introducer),
    false,
  );
});

test("LOCKSTEP_HUB stands in for --hub, and --hub outranks it", async () => {
  const other = "http://127.0.0.1:2";
  const fromEnvironment = await lockstep(["roles"], { env: { LOCKSTEP_HUB: NO_HUB } });
  assert.match(fromEnvironment.stderr, /127\.0\.0\.1:1\b/);
  const given = await lockstep(["roles", "--hub", other], { env: { LOCKSTEP_HUB: NO_HUB } });
  assert.match(given.stderr, /127\.0\.0\.1:2\b/);
});

test("a token file that cannot be used is wrong usage, told before anything is sent", async (context) => {
  const base = temporaryDirectory(context);
  writeFileSync(join(base, "empty"), "\n");
  for (const file of ["missing", "empty"]) {
    const run = await lockstep(["roles", "--hub", NO_HUB, "--token-file", join(base, file)]);
    assert.equal(run.status, 2);
    assert.match(run.stderr, /^error USAGE: /);
  }
});

test("a reader that goes away is no error to shout about", async () => {
  const program = resolve(import.meta.dirname, "../../packages/cli/bin/lockstep.mjs");
  const child = spawn("bash", [
    "-c",
    `"$0" "$1" --help | true; echo "status \${PIPESTATUS[0]}"`,
    process.execPath,
    program,
  ]);
  const run = await ended(child);
  assert.equal(run.stderr, "");
  assert.match(run.stdout, /^status 0\n$/);
});

test("names from outside cannot speak to the terminal", async (context) => {
  const base = temporaryDirectory(context);
  writeFileSync(join(base, "a\u001b[31m\u202eb"), "x");
  writeFileSync(join(base, "line\nfeed"), "x");
  const run = await lockstep(["load", base, "--module", "M", "--version", "1"]);
  assert.equal(run.status, 3);
  assert.equal(run.stderr.includes("\u001b"), false);
  assert.equal(run.stderr.includes("\u202e"), false);
  assert.match(run.stderr, /line\\u000afeed/);
});

test("an interrupted hub that has not begun to serve ends without a word on standard output", async (context) => {
  const base = temporaryDirectory(context);
  const child = start(["hub", "--data", join(base, "hub"), "--listen", "192.0.2.1:1", "--dev"]);
  const run = await ended(child);
  assert.equal(run.status, 3);
  assert.equal(run.stdout, "");
  assert.match(run.stderr, /error HUB_LISTEN_REFUSED: /);
});

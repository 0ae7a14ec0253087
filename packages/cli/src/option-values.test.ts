import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseListen } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import { Command } from "commander";

/**
 * Whatever a person types in the place of a number, size, time or address is refused by the name of the option, with what it
 * takes, what was found, and what to do next. Held for every option that there is, so also for the next one.
 */
const BAD = [
  "x",
  "",
  "-2",
  "1.5.1",
  "1e3",
  "9".repeat(25),
  "10MB",
  "10 MB",
  " 5",
  "5 ",
  "0x10",
  "NaN",
  "ten",
  "1,5",
  "--",
];
/** Words in `<...>` that stand for something to be counted or measured. */
const MEASURED =
  /<(?:.*\b(?:count|n|ms|seconds|hours|bytes|mebibytes|number|revision|id|times?|policy|switch|on\|off)\b.*)>|\[seconds\]/;
/** Texts that only look like it; and what is read where the cluster is known. */
const READ_LATER = /^--(?:module|time|failover-limit|quarantine|at|task|set|config-policy) /;

interface Value {
  readonly where: string;
  readonly flags: string;
  readonly long: string | undefined;
  readonly parse: ((text: string, before: undefined) => unknown) | undefined;
}

async function measuredValues(): Promise<Value[]> {
  const found: Value[] = [];
  const note = (words: string, command: Command) => {
    for (const { flags, long, parseArg } of command.options)
      if (MEASURED.test(flags))
        found.push({
          where: `${words} ${flags}`,
          flags,
          long: long ?? undefined,
          parse: parseArg as Value["parse"],
        });
    for (const each of command.commands) note(`${words} ${each.name()}`, each);
  };
  for (const file of readdirSync(join(import.meta.dirname, "commands"))) {
    const { define } = (await import(`./commands/${file}`)) as { define?: (command: Command) => void };
    if (define === undefined) continue;
    const command = new Command(file.replace(/\.ts$/, ""));
    define(command);
    note(command.name(), command);
  }
  return found;
}

function demandRefused(where: string, name: string | undefined, text: string, parse: () => unknown): void {
  assert.throws(parse, (error) => {
    const what = `${where} ${JSON.stringify(text)}`;
    assert.ok(error instanceof LockstepError, `${what}: ${String(error)}`);
    assert.equal(error.code, "USAGE", what);
    if (name !== undefined)
      assert.ok(`${error.message} ${error.hint}`.includes(name), `${what}: ${error.message}`);
    assert.ok(error.expected !== undefined && error.expected !== "", `${what}: what was expected`);
    assert.equal(error.found, text === "" ? "an empty text" : text, what);
    assert.ok((error.hint ?? "").length > 10, `${what}: what to do next`);
    assert.doesNotMatch(String(error.expected), /9007199254740991/, what);
    return true;
  });
}

test("no option takes something else for a number, a size, a time or a rate, and each says what it takes", async () => {
  const values = (await measuredValues()).filter(({ flags }) => !READ_LATER.test(flags));
  assert.ok(values.length > 40, `${values.length} options`);
  for (const { where, long, parse } of values)
    for (const text of BAD) {
      assert.ok(parse !== undefined, `${where} is not looked at`);
      demandRefused(where, long, text, () => parse(text, undefined));
    }
});

test("an address to listen on is a host and a port that there is", () => {
  for (const text of [
    "x",
    "",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:65536",
    "a b:80",
    "http://h:80/",
  ])
    demandRefused("--listen", "--listen", text, () => parseListen(text));
  assert.deepEqual(parseListen("8700"), { host: "127.0.0.1", port: 8700 });
});

test("a rate says what it can be", async () => {
  const rate = (await measuredValues()).find(({ long }) => long === "--rate")?.parse;
  assert.ok(rate !== undefined);
  for (const text of ["x", "1", "19999"])
    assert.throws(() => rate(text, undefined), {
      code: "USAGE",
      message: "--rate takes bytes in a second",
      expected: "none, hub, or a whole number of at least 20000, in digits alone",
      found: text,
    });
  assert.deepEqual(
    ["none", "hub", "20000"].map((text) => rate(text, undefined)),
    [0, null, 20_000],
  );
});

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { Command } from "commander";

/**
 * What the documents tell people to type must be there. An option that a command lost is found by nobody else: the reference is
 * held against the commands (tests/cli/contract.test.ts), and tests of what stands behind an option do not start the command.
 */
const ROOT = resolve(import.meta.dirname, "../../..");

/** The words of each command, down to the last subcommand, with its options. */
async function optionsOfCommands(): Promise<Map<string, ReadonlySet<string>>> {
  const found = new Map<string, ReadonlySet<string>>();
  const note = (words: string, command: Command) => {
    const inherited = found.get(words.slice(0, words.lastIndexOf(" ")));
    found.set(
      words,
      new Set([...(inherited ?? []), "--help", ...command.options.flatMap(({ long }) => long ?? [])]),
    );
    for (const each of command.commands) note(`${words} ${each.name()}`, each);
  };
  for (const file of readdirSync(join(import.meta.dirname, "commands"))) {
    const name = file.replace(/\.ts$/, "");
    const command = new Command(name);
    const { define } = (await import(`./commands/${file}`)) as { define?: (command: Command) => void };
    // Some files hold subcommands of another.
    if (define === undefined) continue;
    define(command);
    note(name, command);
  }
  return found;
}

/** The command lines in a text: code between backquotes, and lines of blocks; what stands behind ` -- ` is another program's. */
function commandLines(text: string): string[] {
  const whole = text.replaceAll("\\\n", " ");
  const blocks = [...whole.matchAll(/```[a-z]*\n([\s\S]*?)```/g)].flatMap(([, block = ""]) =>
    block.split("\n"),
  );
  const words = [...whole.replaceAll(/```[\s\S]*?```/g, "").matchAll(/`([^`]+)`/g)].map(
    ([, code = ""]) => code,
  );
  return [...blocks, ...words].flatMap((code) =>
    [...code.matchAll(/\blockstep ([a-z][^|#&]*)/g)].map(
      ([, line = ""]) => line.split(/ -- | {3,}/)[0] ?? "",
    ),
  );
}

/** Options that no command has with which a text shows them. */
function lacking(text: string, commands: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  return commandLines(text).flatMap((line) => {
    const words = line.split(/[\s/]+/);
    let known = "";
    for (const word of words) {
      const longer = known === "" ? word : `${known} ${word}`;
      if (!commands.has(longer)) break;
      known = longer;
    }
    const options = commands.get(known);
    if (options === undefined) return [];
    return (line.match(/--[a-z][a-z-]*/g) ?? [])
      .filter((option) => !options.has(option))
      .map((option) => `lockstep ${known} ${option}`);
  });
}

test("commands have every option with which the documents show them", async () => {
  const commands = await optionsOfCommands();
  const documents = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => join("docs", path));
  const lines: string[] = [];
  for (const path of ["README.md", "CHANGELOG.md", ...documents]) {
    const text = readFileSync(join(ROOT, path), "utf8");
    lines.push(...commandLines(text));
    assert.deepEqual(lacking(text, commands), [], path);
  }
  assert.ok(lines.length > 300, `${lines.length} command lines found`);
  assert.deepEqual(
    lacking("```\nlockstep keys list --no-such DIR   --not-this\n```\nand `lockstep x`", commands),
    ["lockstep keys list --no-such"],
  );
});

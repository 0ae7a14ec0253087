import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  checkPath,
  isModuleId,
  isServerName,
  isVersion,
  parsePackageName,
  parseRoleName,
} from "@lockstep/core";
import { install, update } from "@lockstep/updater";
import { runProgram } from "../../packages/service/src/components/program.ts";
import { temporaryDirectory } from "../cli/lockstep.ts";
import { makeArchive } from "../updater/archives.ts";
import { makeWorld } from "../updater/world.ts";

/** C5: texts that a shell would carry out, wherever a text of others gets to. What they would leave is a canary. */
const CANARY = `lockstep-canary-${process.pid}`;
const COMMAND = `touch ${CANARY}`;
const SHAPES = [
  (command: string) => `$(${command})`,
  (command: string) => `\`${command}\``,
  (command: string) => `; ${command}`,
  (command: string) => `;${command};`,
  (command: string) => `| ${command}`,
  (command: string) => `|| ${command}`,
  (command: string) => `&& ${command}`,
  (command: string) => `& ${command} &`,
  (command: string) => `\n${command}\n`,
  (command: string) => `\r\n${command}`,
  (command: string) => `'; ${command}; '`,
  (command: string) => `"; ${command}; "`,
  (command: string) => `"$(${command})"`,
  (command: string) => `'$(${command})'`,
  (command: string) => `$(${command.replaceAll(" ", "$" + "{IFS}")})`,
  (command: string) => `{${command.replaceAll(" ", ",")}}`,
  (command: string) => `<(${command})`,
  (command: string) => `#\n${command}`,
  (command: string) => `\\$(${command})`,
  (command: string) => `() { :; }; ${command}`,
];
const PLACES = [
  (text: string) => text,
  (text: string) => `name${text}`,
  (text: string) => `${text}name`,
  (text: string) => `1.2${text}`,
  (text: string) => `-x${text}`,
  (text: string) => `a b${text}c d`,
  (text: string) => `'${text}`,
  (text: string) => `"${text}`,
  (text: string) => `$HOME${text}`,
  (text: string) => `--${text}`,
];
const PAYLOADS = SHAPES.flatMap((shape) => PLACES.map((place) => place(shape(COMMAND))));

/** Whether any of them was carried out, wherever a program of ours may have stood. */
function demandNoCanary(...directories: readonly string[]): void {
  for (const directory of ["/", process.cwd(), ...directories])
    assert.equal(existsSync(join(directory, CANARY)), false, `one was carried out in ${directory}`);
}

/** Whether what was read of a name could mean anything to a shell; white space around a name is no part of it. */
const means = (name: string | null) => name !== null && !/^[A-Za-z0-9 ._/-]+$/.test(name);

test("C5: no name, version or name of a virtual server can hold one", () => {
  assert.equal(PAYLOADS.length, 200);
  for (const text of PAYLOADS) {
    const taken = [
      isModuleId(text),
      isVersion(text),
      isServerName(text),
      means(parseRoleName(text)),
      means(parsePackageName(`M/${text}`)),
    ];
    assert.deepEqual(taken, [false, false, false, false, false], text);
  }
  // The control: these are names.
  assert.deepEqual(
    [isModuleId("APP"), isVersion("1.2-rc.1"), isServerName("queue-1"), parseRoleName("Server/App")],
    [true, true, true, "Server/App"],
  );
});

test("C5: programs of steps get arguments, environment and directory as they are", async (t: TestContext) => {
  const root = temporaryDirectory(t);
  const directory = join(root, "$(touch canary) `x` \"'");
  mkdirSync(directory);
  const end = await runProgram({
    program: process.execPath,
    arguments: [
      "-e",
      "console.log(JSON.stringify([process.argv.slice(1), process.env.GIVEN]))",
      "--",
      ...PAYLOADS,
    ],
    directory,
    environment: { PATH: process.env.PATH ?? "", GIVEN: PAYLOADS.join(" ") },
    input: null,
    signal: new AbortController().signal,
    outputBytesMax: 1 << 20,
  });
  const said = JSON.parse(
    end.stdout.text({ text: (text) => text, start: (text) => text, end: (text) => text }),
  ) as [string[], string];
  assert.deepEqual(said, [PAYLOADS, PAYLOADS.join(" ")]);
  demandNoCanary(root, directory);
  for (const program of PAYLOADS.slice(0, 20))
    await assert.rejects(
      runProgram({
        ...{ program, arguments: [], directory, environment: {}, input: null, outputBytesMax: 1000 },
        signal: new AbortController().signal,
      }),
    );
  demandNoCanary(root, directory);
  // The control: a shell carries nearly all of them out.
  let carried = 0;
  for (const text of PAYLOADS.slice(0, 40)) {
    try {
      execFileSync("sh", ["-c", `echo ${text}`], { cwd: root, stdio: "ignore" });
    } catch {
      // Not every one of them is a whole command.
    }
    if (existsSync(join(root, CANARY))) carried++;
    rmSync(join(root, CANARY), { force: true });
  }
  assert.ok(carried > 10, `${carried} of 40`);
});

test("C5: an update with such paths, in such a directory, carries none of them out", async (t) => {
  const paths = [...new Set(PAYLOADS)].filter((path) => checkPath(path) === null);
  assert.ok(paths.length >= 10, `${paths.length} of them are names of files`);
  const targets = ["role:A"];
  for (const name of [`a $(${COMMAND}) b`, `'; ${COMMAND}; '`, `"\`${COMMAND}\`"`, "-n"]) {
    const world = await makeWorld(t);
    const files = Object.fromEntries(paths.map((path) => [path, { content: path, targets }] as const));
    world.hub.publish({ file: { content: "one", targets } });
    const directory = join(world.root, name);
    await install(directory, world.installOptions(["A"]));
    // A plug-in, so that its walls go up around this very directory.
    const plugin = `import fs from "node:fs"; export function prepare() { fs.writeFileSync("ran", ""); }`;
    const archive = await makeArchive({ plugins: { "x.update.mjs": plugin } });
    world.hub.publish({ file: { content: "two", targets }, ...files }, { archive });
    await update(directory, world.options());
    for (const path of paths) assert.equal(readFileSync(join(directory, path), "utf8"), path);
    assert.ok(existsSync(join(directory, "ran")));
    demandNoCanary(world.root, directory, join(directory, ".lockstep"));
  }
});

/** A command that an administrator gives on the command line to be carried out by a shell is the only text of anybody. */
const GIVEN_BY_ADMINISTRATOR = ["packages/cli/src/cluster/update.ts"];

test("C5: wherever a shell is started its script is written in the source", () => {
  const root = join(import.meta.dirname, "../..");
  const sources = readdirSync(join(root, "packages"), { recursive: true, encoding: "utf8" }).filter(
    (path) => /\/src\/.*\.ts$/.test(path) && !path.includes("node_modules") && !path.endsWith(".test.ts"),
  );
  let shells = 0;
  for (const path of sources) {
    const text = readFileSync(join(root, "packages", path), "utf8");
    assert.doesNotMatch(text, /\bshell:\s*true/, path);
    assert.doesNotMatch(text, /import \{[^}]*\bexec(?:Sync)?\b[^}]*\} from "node:child_process"/, path);
    for (const [, script = ""] of text.matchAll(/"(?:\/bin\/)?sh",\s*\[?\s*"-c",\s*([^,\]]+)/g)) {
      shells++;
      if (GIVEN_BY_ADMINISTRATOR.includes(`packages/${path}`)) continue;
      assert.match(script, /^(?:[A-Z_]+(?:\[\w+\]?)?|"[^"$`]*")$/, `${path} starts a shell with ${script}`);
    }
  }
  assert.ok(shells >= 5, `${shells} shells`);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { fileAttributes } from "@lockstep/core";
import fc from "fast-check";
import { type Fault, LockstepError } from "./errors.ts";
import { parseModuleFile } from "./module-file.ts";
import { TomlLines } from "./toml-lines.ts";

const GOOD = `
format = 1
id = "MOD"
version = "7.1.3"
name = "A module"

[requires]
BASE = { min = "7.1", max = "7.1.*" }
OPT = {}

[[role]]
path = "Server/JobServer"
packages = [
  { id = "MOD/Core", subdirectory = "bin" },
  { id = "BASE/Tools" },
]

[[package]]
id = "MOD/Core"
requires = ["MOD/Hidden", "BASE/Runtime"]

[[package]]
id = "MOD/Hidden"
description = "Never chosen"
selectable = false

[[files]]
match = "**"
roles = ["Server"]

[[files]]
match = "*.sh"
mode = "755"
backup = true

[[files]]
match = "doc/**"
roles = []

[[files]]
match = "core.dll"
packages = ["MOD/Core"]
version = "7.1.3.4"
`;

function faultsOf(text: string): readonly Fault[] {
  try {
    parseModuleFile(text);
  } catch (error) {
    if (error instanceof LockstepError && error.code === "MODULE_FILE_INVALID") return error.faults;
    throw error;
  }
  return [];
}

test("a module description is read as it is meant", () => {
  const module = parseModuleFile(GOOD);
  assert.deepEqual(module.requires, [
    { module: "BASE", min: "7.1", max: "7.1.*" },
    { module: "OPT", min: null, max: null },
  ]);
  assert.deepEqual(module.roles, [
    {
      path: "Server/JobServer",
      description: "",
      selectable: true,
      packages: [
        { package: "MOD/Core", subdirectory: "bin" },
        { package: "BASE/Tools", subdirectory: "" },
      ],
    },
  ]);
  assert.equal(module.packages[1]?.selectable, false);
});

test("the last matching rule wins, for each attribute by itself", () => {
  const { files } = parseModuleFile(GOOD);
  const role = { kind: "role", name: "Server" } as const;
  assert.deepEqual(fileAttributes(files, "run.sh"), {
    targets: [role],
    version: null,
    backup: true,
    mode: 0o755,
  });
  assert.deepEqual(fileAttributes(files, "doc/a.md"), {
    targets: [],
    version: null,
    backup: null,
    mode: null,
  });
  assert.deepEqual(fileAttributes(files, "core.dll").targets, [{ kind: "package", name: "MOD/Core" }]);
  assert.deepEqual(fileAttributes(files, "a/b").targets, [role]);
});

test("all faults are told at once, each with its line", () => {
  const faults = faultsOf(`format = 2
id = "not an id!"
verison = "1"

[requires]
X = { min = "1.0", mx = "2" }
"Y Z!" = { max = 3 }

[[role]]
path = "Server//x"
packages = [
  { id = "nopackage" },
  { id = "A/b",
    subdirectory = "../up" },
]

[[role]]
selectable = "yes"

[[package]]
id = "OTHER/Core"

[[files]]
match = "a[b"
mode = "1777"
roles = ["Server", "-"]
# a comment with [[files]] in it
colour = """
[[files]]
"""

[[files]]
backup = 1
`);
  const told = faults.map((fault) => [Number(fault.where.split(":")[1]), fault.problem.split(":")[0]]);
  assert.deepEqual(told, [
    [1, "format"],
    [1, "version"],
    [2, "id"],
    [3, "verison"],
    [6, "requires.X.mx"],
    [7, "requires.Y Z!.max"],
    [7, "requires.Y Z!"],
    [10, "role[1].path"],
    [12, "role[1].packages[1].id"],
    [14, "role[1].packages[2].subdirectory"],
    [17, "role[2].path"],
    [18, "role[2].selectable"],
    [21, "package[1].id"],
    [24, "files[1].match"],
    [25, "files[1].mode"],
    [26, "files[1].roles[2]"],
    [28, "files[1].colour"],
    [32, "files[2].match"],
    [33, "files[2].backup"],
  ]);
});

test("what TOML itself refuses is told with line and column", () => {
  const [fault] = faultsOf('format = 1\nid = "x\nversion = "1"\n');
  assert.match(fault?.where ?? "", /^module\.toml:2:\d+$/);
});

test("packages that need each other are found, with the whole circle", () => {
  const faults = faultsOf(`format = 1
id = "M"
version = "1"
[[package]]
id = "M/a"
requires = ["M/b"]
[[package]]
id = "M/b"
requires = ["M/c"]
[[package]]
id = "M/c"
requires = ["M/b"]
`);
  assert.deepEqual(
    faults.map((fault) => fault.problem),
    ["package[1].requires: packages need each other in a circle: M/b needs M/c needs M/b"],
  );
});

test("lines are right whatever strings, comments and nesting stand before", () => {
  const text = `a = 1 # x = [
b = "]}\\"" # "
c = '''
d = 1
'''
[t."q.r"]
e = [ [1, # one
  2], {f = "
".length} ]`.replace('"\n".length', '"x"');
  const lines = new TomlLines(text);
  assert.equal(lines.lineOf(["b"]), 2);
  assert.equal(lines.lineOf(["c"]), 3);
  assert.equal(lines.lineOf(["t", "q.r"]), 6);
  assert.equal(lines.lineOf(["t", "q.r", "e", 0, 1]), 8);
  assert.equal(lines.lineOf(["t", "q.r", "e", 1, "f"]), 8);
  assert.equal(lines.lineOf(["nowhere"]), 1);
});

test("any text gives a description or faults with a place, never anything else", () => {
  const line = fc.constantFrom(
    "format = 1",
    'id = "A"',
    'version = "1"',
    "[requires]",
    "B = 1",
    "[[role]]",
    'path = "S"',
    "[role.packages]",
    "[[files]]",
    'match = "*"',
    "roles = [1, [2]]",
    "x = 1979-05-27",
    "[files]",
    'y = """',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.array(line).map((lines) => lines.join("\n")),
        fc.string(),
      ),
      (text) => {
        for (const fault of faultsOf(text)) assert.match(fault.where, /^module\.toml:\d+(:\d+)?$/);
      },
    ),
    { numRuns: 1000 },
  );
});

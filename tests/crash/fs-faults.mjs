// Loaded by Node before a program (`--import`): counts the program's calls of node:fs on files below one directory, and
// lets the one that LOCKSTEP_FAULT names fail with an error of the system, before it has any effect. A call is known by
// what it does, to which path, and the how-manieth time: what several threads and a network do in which order differs
// from run to run. Each struck or counted call is appended to a file.
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { resolve } from "node:path";

const {
  root,
  process: wanted,
  call,
  name: wantedName,
  path: wantedPath,
  code,
  log,
} = JSON.parse(process.env.LOCKSTEP_FAULT ?? "{}");
const role = process.argv.includes("apply") ? "updater" : "command";
const append = fs.appendFileSync;
const ERRNO = { EPERM: -1, EIO: -5, EACCES: -13, EMFILE: -24, ENOSPC: -28 };
const BY_PATH = [
  "access",
  "appendFile",
  "chmod",
  "copyFile",
  "exists",
  "link",
  "lstat",
  "mkdir",
  "mkdtemp",
  "open",
  "readFile",
  "readdir",
  "readlink",
  "realpath",
  "rename",
  "rm",
  "rmdir",
  "stat",
  "statfs",
  "symlink",
  "unlink",
  "utimes",
  "writeFile",
];
const BY_DESCRIPTOR = ["close", "fchmod", "fdatasync", "fstat", "fsync", "ftruncate", "read", "write"];

const isOurs = (path) => typeof path === "string" && (path === root || path.startsWith(`${root}/`));
const descriptors = new Map();
const counts = new Map();
let depth = 0;

/** Without the parts of names that are drawn anew in each run. */
const shown = (path) =>
  path
    .slice(root.length + 1)
    .replace(/^\.lockstep\/staging\/[^/.]+/, ".lockstep/staging/ID")
    .replace(/^\.lockstep\/(lock|self-test)-[^/]+/, ".lockstep/$1-ID");

function strike(name, path) {
  const at = shown(path);
  const key = `${name} ${at}`;
  const count = (counts.get(key) ?? 0) + 1;
  counts.set(key, count);
  if (call === 0) append(log, `${role} ${count} ${key}\n`);
  if (role !== wanted || count !== call || name !== wantedName || at !== wantedPath) return;
  append(log, `struck ${role} ${count} ${key}\n`);
  if (name === "exists") return false;
  throw Object.assign(new Error(`${code}: injected, ${name} '${path}'`), {
    code,
    errno: ERRNO[code],
    syscall: name,
    path,
  });
}

function wrap(name, pathOf) {
  const original = fs[`${name}Sync`];
  if (typeof original !== "function") return;
  const wrapped = function (...parameters) {
    const path = depth === 0 ? pathOf(parameters) : undefined;
    if (path !== undefined) {
      depth++;
      try {
        if (strike(name, path) === false) return false;
      } finally {
        depth--;
      }
    }
    depth++;
    try {
      const result = original.apply(this, parameters);
      if (name === "open" && path !== undefined) descriptors.set(result, path);
      if (name === "close") descriptors.delete(parameters[0]);
      return result;
    } finally {
      depth--;
    }
  };
  fs[`${name}Sync`] = Object.assign(wrapped, original);
}

if (root !== undefined) {
  for (const name of BY_PATH)
    wrap(name, (parameters) =>
      parameters
        .slice(0, 2)
        .map((each) => (typeof each === "string" && each.startsWith("/") ? resolve(each) : undefined))
        .find(isOurs),
    );
  for (const name of BY_DESCRIPTOR) wrap(name, ([descriptor]) => descriptors.get(descriptor));
  syncBuiltinESMExports();
}

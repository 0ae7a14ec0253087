// Brings node_modules to what package-lock.json says, and knows at next to no cost when it already is.
//
// The stamp inside node_modules holds a digest of everything that decides what belongs there. Equal: nothing is looked
// at. Different: each package of the lock file is held against the disk, because `npm install` by hand or a change of a
// script line must not cost a reinstallation; only what is really missing or wrong leads to `npm ci`.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { npmCommand, npmEnvironment } from "./npm.mjs";
import { run } from "./spawn.mjs";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const nodeModules = join(root, "node_modules");
const stampFile = join(nodeModules, ".lockstep-install");
const lockDirectory = join(root, ".cache", "install-lock");

function digest() {
  const hash = createHash("sha256");
  const manifests = readdirSync(join(root, "packages")).map((name) =>
    join(root, "packages", name, "package.json"),
  );
  for (const file of ["package-lock.json", "package.json", ".npmrc"]
    .map((name) => join(root, name))
    .concat(manifests.sort()))
    if (existsSync(file)) hash.update(`${file.slice(root.length)}\n`).update(readFileSync(file));
  return hash.update(`${process.platform} ${process.arch} ${libc()}`).digest("hex");
}

function libc() {
  if (process.platform !== "linux") return null;
  return process.report.getReport().header.glibcVersionRuntime === undefined ? "musl" : "glibc";
}

/** Whether npm would install this package here: `os`, `cpu` and `libc` name what is accepted, or with `!` what is not. */
export function fitsMachine(entry, machine) {
  const fits = (wanted, value) => {
    if (wanted === undefined || value === null) return true;
    const list = Array.isArray(wanted) ? wanted : [wanted];
    if (list.includes(`!${value}`)) return false;
    return list.includes(value) || list.includes("any") || list.every((each) => each.startsWith("!"));
  };
  return fits(entry.os, machine.os) && fits(entry.cpu, machine.cpu) && fits(entry.libc, machine.libc);
}

/** Names what differs between the lock file and the disk; empty when all is there. */
function findDifferences() {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const machine = { os: process.platform, cpu: process.arch, libc: libc() };
  const differences = [];
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (!path.includes("node_modules/") || !fitsMachine(entry, machine)) continue;
    const manifest = join(root, path, "package.json");
    if (!existsSync(manifest)) {
      // Of the optional packages only those made for this machine are wanted for certain; the others hang on these.
      if (entry.optional !== true || entry.os !== undefined || entry.cpu !== undefined)
        differences.push(`${path} is missing`);
    } else if (entry.link !== true && JSON.parse(readFileSync(manifest, "utf8")).version !== entry.version)
      differences.push(`${path} is not ${entry.version}`);
  }
  return differences;
}

/** One installation at a time in one checkout; a holder that died does not count. */
async function withLock(action) {
  const owner = join(lockDirectory, "pid");
  mkdirSync(dirname(lockDirectory), { recursive: true });
  for (let told = false; ; ) {
    try {
      mkdirSync(lockDirectory);
      break;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const pid = existsSync(owner) ? Number(readFileSync(owner, "utf8")) : 0;
    if (pid > 0 && !isAlive(pid)) rmSync(lockDirectory, { recursive: true, force: true });
    else if (!told) {
      console.error(`waiting for the installation that process ${pid} is doing in this directory`);
      told = true;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  try {
    writeFileSync(owner, String(process.pid));
    return await action();
  } finally {
    rmSync(lockDirectory, { recursive: true, force: true });
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

const isStamped = (wanted) => existsSync(stampFile) && readFileSync(stampFile, "utf8") === wanted;

/** Makes node_modules what the lock file says. Ends the process with npm's status when that fails. */
export async function ensureInstalled() {
  const wanted = digest();
  if (isStamped(wanted)) return;
  await withLock(async () => {
    if (isStamped(wanted)) return;
    const differences = findDifferences();
    if (differences.length > 0) {
      const first = existsSync(nodeModules)
        ? `${differences[0]}, ${differences.length} in all`
        : "first start";
      console.error(`installing the packages of package-lock.json (${first}): npm ci`);
      await npmCi();
      const left = findDifferences();
      if (left.length > 0) {
        console.error(`npm ci ended well, but ${left[0]} (${left.length} in all).`);
        process.exit(1);
      }
    }
    writeFileSync(stampFile, wanted);
  });
}

async function npmCi() {
  // Settings of the machine (production only, no optional packages, no scripts) must not thin out what the tests need.
  const args = [
    "ci",
    "--include=dev",
    "--include=optional",
    "--ignore-scripts=false",
    "--no-audit",
    "--no-fund",
  ];
  const [file, ...before] = npmCommand();
  let status = 1;
  try {
    status = await run(file, [...before, ...args], {
      cwd: root,
      // Standard output belongs to the command that was asked for.
      stdio: ["ignore", 2, 2],
      env: npmEnvironment(root),
      shell: process.platform === "win32" && file === "npm",
    });
  } catch (error) {
    console.error(`npm could not be started: ${error.message}`);
  }
  if (status !== 0) {
    console.error(`npm ci ended with status ${status}; nothing else was started.`);
    process.exit(status);
  }
}

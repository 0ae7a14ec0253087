#!/usr/bin/env node
// The command as people call it, on whatever Node their machine has (20 or newer). Where that Node can run our program
// it does, in this very process; otherwise the pinned Node takes over, and nobody outside can tell the difference:
// same arguments, same input and output, same signals, same exit status.
import { existsSync, mkdirSync, statSync } from "node:fs";
import * as nodeModule from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const NODE_MINIMUM = [24, 15];

const here = dirname(fileURLToPath(import.meta.url));
// A checkout runs its sources as they are, whatever an older build left behind; what ships is bundled.
const program = [join(here, "..", "src", "main.ts"), join(here, "..", "lockstep.mjs")].find((file) =>
  existsSync(file),
);

/** Names, for the Node that takes over, the pipe whose other end this process holds as long as it lives. */
const PARENT_PIPE = "LOCKSTEP_PARENT_PIPE";

if (program === undefined) {
  console.error("lockstep: this installation is incomplete, its program is missing. Install it again.");
  process.exitCode = 1;
} else if (runsOnThisNode()) {
  await dieWithParent();
  const cache = codeCacheDirectory();
  if (cache !== null) nodeModule.enableCompileCache(cache);
  await import(pathToFileURL(program).href);
} else {
  await handOver();
}

function runsOnThisNode() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  return major > NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor >= NODE_MINIMUM[1]);
}

/**
 * Where compiled code is kept between starts, which halves their time. Whoever can write there decides what we run, so
 * it is a directory that belongs to this user and that nobody else can write to, or none: never the shared /tmp.
 */
function codeCacheDirectory() {
  const nodeModules = findNodeModules(here);
  const places = [
    () => (nodeModules === null ? null : join(nodeModules, ".cache")),
    () => process.env.XDG_CACHE_HOME || join(homedir(), ".cache"),
  ];
  const user = process.geteuid?.();
  for (const place of places) {
    try {
      const parent = place();
      if (parent === null || !existsSync(dirname(parent))) continue;
      const directory = join(parent, "lockstep", "code");
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      const { uid, mode } = statSync(directory);
      if (user === undefined || (uid === user && (mode & 0o022) === 0)) return directory;
    } catch {
      // No such place for us: the next one, or none. A slower start is no reason to fail.
    }
  }
  return null;
}

function findNodeModules(from) {
  for (let directory = from; ; directory = dirname(directory)) {
    const candidate = join(directory, "node_modules");
    if (existsSync(candidate)) return candidate;
    if (dirname(directory) === directory) return null;
  }
}

/** The pinned Node, in the nearest node_modules upwards that has one. */
function findPinnedNode() {
  const { platform, arch } = process;
  const name =
    platform === "win32"
      ? `node-win-${arch}`
      : `node-${platform === "darwin" ? "bin-darwin" : platform}-${arch}`;
  const file = platform === "win32" ? "node.exe" : "node";
  for (let directory = here; ; directory = dirname(directory)) {
    const candidate = join(directory, "node_modules", name, "bin", file);
    if (existsSync(candidate)) return candidate;
    if (dirname(directory) === directory) return null;
  }
}

/**
 * Whoever kills this command with SIGKILL means the program, not the Node that handed over to it. That Node cannot pass
 * the signal on, but the system closes its end of the pipe, and then the program goes in the same way.
 */
async function dieWithParent() {
  const descriptor = process.env[PARENT_PIPE];
  if (descriptor === undefined) return;
  delete process.env[PARENT_PIPE];
  const { Socket } = await import("node:net");
  const pipe = new Socket({ fd: Number(descriptor), readable: true, writable: false });
  const end = () => process.kill(process.pid, "SIGKILL");
  pipe.on("end", end).on("error", end).resume();
  pipe.unref();
}

async function handOver() {
  const node = findPinnedNode();
  if (node === null) {
    console.error(
      `lockstep: this needs Node ${NODE_MINIMUM.join(".")} or newer; the one that was found is ${process.versions.node}, and no\n` +
        `Node for ${process.platform}-${process.arch} is installed beside lockstep. Install Node 26, or run npm ci in the checkout.`,
    );
    process.exitCode = 1;
    return;
  }
  const { spawn } = await import("node:child_process");
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ["inherit", "inherit", "inherit", "pipe"],
    env: { ...process.env, [PARENT_PIPE]: "3" },
  });
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2", "SIGWINCH"];
  for (const signal of signals) {
    try {
      process.on(signal, () => child.kill(signal));
    } catch {
      // A signal that this platform does not know.
    }
  }
  const [status, signal] = await new Promise((resolve) => {
    child.once("error", (error) => {
      console.error(`lockstep: ${node} could not be started: ${error.message}`);
      resolve([1, null]);
    });
    child.once("exit", (...ended) => resolve(ended));
  });
  if (signal === null) {
    process.exit(status);
  }
  for (const each of signals) process.removeAllListeners(each);
  process.kill(process.pid, signal);
}

// Which Node runs our TypeScript. The lock file pins one as a plain package (no install script, integrity checked), so
// that every machine tests the same; where that package does not exist for a platform, a Node that is new enough will do.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** The oldest Node that runs the sources as they are (type stripping, zstd, compile cache). */
export const NODE_MINIMUM = [24, 15];

/** Whether a version such as `v24.15.0` or `26.10.0` is new enough. */
export function isNewEnough(version) {
  const [major = 0, minor = 0] = version.replace(/^v/, "").split(".").map(Number);
  return major > NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor >= NODE_MINIMUM[1]);
}

/** Path of the pinned Node's program in a node_modules directory, whether it exists or not. */
export function pinnedNodePath(nodeModules) {
  const { platform, arch } = process;
  return platform === "win32"
    ? join(nodeModules, `node-win-${arch}`, "bin", "node.exe")
    : join(nodeModules, `node-${platform === "darwin" ? "bin-darwin" : platform}-${arch}`, "bin", "node");
}

/** The Node to use for the checkout at `root`: the pinned one if it runs here, else this one if it is new enough, else null. */
export function findNode(root) {
  const pinned = pinnedNodePath(join(root, "node_modules"));
  if (existsSync(pinned) && spawnSync(pinned, ["--version"], { stdio: "ignore" }).status === 0) return pinned;
  if (isNewEnough(process.versions.node)) return process.execPath;
  console.error(
    `lockstep needs Node ${NODE_MINIMUM.join(".")} or newer. There is none for ${process.platform}-${process.arch} in ` +
      `node_modules, and the Node that runs this is ${process.versions.node}. Install Node 26 and try again.`,
  );
  return null;
}

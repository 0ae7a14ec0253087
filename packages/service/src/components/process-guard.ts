import { type ChildProcess, spawn } from "node:child_process";

/**
 * Ends the programs of steps also when the process that started them dies without a chance to do so.
 *
 * Each program runs in a process group of its own, so that it can be ended with everything that it started. But whoever
 * kills a worker kills the worker's group, not these; a killed service would leave them running while the same step
 * begins elsewhere. So each process that starts programs has one guard: a shell in a session of its own that is told
 * the groups through a pipe. The pipe ends when the process does, however that happened; then the guard kills what is
 * still on its list. It sleeps until then and costs about a megabyte.
 *
 * Not promised: a program that leaves its group on purpose (`setsid`) is not followed, and Windows has no such groups;
 * there the tree is ended by `taskkill` while we live.
 */
const GUARD = `
groups=
while read -r sign group; do
  rest=
  for each in $groups; do [ "$each" = "$group" ] || rest="$rest $each"; done
  groups=$rest
  [ "$sign" = + ] && groups="$groups $group"
done
for each in $groups; do kill -s KILL -- "-$each"; done
`;

const hasGroups = process.platform !== "win32";
const groups = new Set<number>();
let guard: ChildProcess | null = null;

/** Puts a process group under guard; its id is that of the process that leads it. */
export function guardGroup(group: number): void {
  if (!hasGroups) return;
  groups.add(group);
  if (guard === null) startGuard();
  else guard.stdin?.write(`+ ${group}\n`);
}

/** Takes a group whose processes have all ended off the list. */
export function releaseGroup(group: number): void {
  if (groups.delete(group)) guard?.stdin?.write(`- ${group}\n`);
}

function startGuard(): void {
  const child = spawn("/bin/sh", ["-c", GUARD], {
    cwd: "/",
    env: {},
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  guard = child;
  const onEnd = () => {
    if (guard !== child) return;
    guard = null;
    // Somebody killed the guard; what it guarded needs another one.
    if (child.pid !== undefined && groups.size > 0) startGuard();
  };
  child.once("error", onEnd).once("exit", onEnd);
  child.stdin.on("error", () => {});
  child.stdin.write([...groups].map((group) => `+ ${group}\n`).join(""));
  // It must not keep its process alive: that its process ends is what it waits for.
  child.unref();
  if ("unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref();
}

/** Sends a signal to every process of a group; nothing happens where there is none any more. */
export function signalGroup(group: number, signal: "SIGTERM" | "SIGKILL"): void {
  if (!hasGroups) {
    spawn("taskkill", ["/pid", String(group), "/T", "/F"], { stdio: "ignore" }).on("error", () => {});
    return;
  }
  try {
    process.kill(-group, signal);
  } catch {
    // It has ended.
  }
}

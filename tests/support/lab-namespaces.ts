import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";

/**
 * Whose a namespace is, and how it goes. The kernel keeps a named network namespace until somebody deletes the name, and
 * the processes in it run on, so a test that dies must not be the only one who can clean up. Three do: the test itself,
 * a shell that waits for the end of a pipe of the test's (also after SIGKILL), and each new lab, which looks for what
 * dead tests have left because the shell was killed too.
 */
export const NAMESPACES = "/run/netns";
const NAME = /^lockstep-lab-(\d+)-(\d+)-/;

/** Begins the names of everything that belongs to lab `number` of this process. */
export function labPrefix(number: number): string {
  return `lockstep-lab-${process.pid}-${startTicks(process.pid) ?? 0}-${number}`;
}

/** When a process began, in clock ticks since the machine did; with its id it names one process (proc(5)). */
function startTicks(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

function isOfTheDead(name: string): boolean {
  const [, pid, start] = NAME.exec(name) ?? [];
  return pid !== undefined && start !== undefined && startTicks(Number(pid)) !== start;
}

/** Processes whose network is this namespace, as far as they are not zombies. */
export function processesIn(namespace: string): number[] {
  let inode: number;
  try {
    inode = statSync(`${NAMESPACES}/${namespace}`).ino;
  } catch {
    return [];
  }
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/ns/net`) === `net:[${inode}]` && !isZombie(pid);
      } catch {
        return false;
      }
    });
}

/** `R`, `S`, `T` and so on (proc(5)); null: there is no such process. */
export function processState(pid: number, place = `/proc/${pid}`): string | null {
  try {
    const stat = readFileSync(`${place}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
  } catch {
    return null;
  }
}

/** The same of each of its threads. A process has ended, or stands still, when the last of them has: the first tells nothing. */
function threadStates(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .map((thread) => processState(pid, `/proc/${pid}/task/${thread}`))
      .filter((state) => state !== null);
  } catch {
    return [];
  }
}

/** Whether nothing of a process runs any more, and all that it held open is closed. */
export const hasEnded = (pid: number): boolean => threadStates(pid).every((state) => "ZX".includes(state));

/** Whether a process stands still. */
export const isStopped = (pid: number): boolean => threadStates(pid).every((state) => "TZX".includes(state));

const isZombie = (pid: number): boolean => ["Z", "X", null].includes(processState(pid));

/** Kills whatever runs in a namespace, also what is being forked meanwhile, and deletes it. */
async function removeNamespace(namespace: string): Promise<void> {
  for (let pids = processesIn(namespace); pids.length > 0; pids = processesIn(namespace)) {
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was faster.
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await promisify(execFile)("ip", ["netns", "del", namespace]).catch(() => {});
}

function listNamespaces(): string[] {
  try {
    return readdirSync(NAMESPACES);
  } catch {
    return [];
  }
}

/** Ends a lab: its processes, its namespaces, its directory. */
export async function removeLab(prefix: string, directory: string): Promise<void> {
  const own = listNamespaces().filter((name) => name.startsWith(`${prefix}-`));
  await Promise.all(own.map(removeNamespace));
  await rm(directory, { recursive: true, force: true, maxRetries: 10 });
}

/** Removes what dead tests have left. `parent`: where the directories of labs are. */
export async function sweepDeadLabs(parent: string): Promise<void> {
  await Promise.all(listNamespaces().filter(isOfTheDead).map(removeNamespace));
  const left = readdirSync(parent).filter(isOfTheDead);
  // The shell of the dead test, or another lab, may be at it too: what is left then is the next one's.
  await Promise.all(
    left.map((name) => rm(`${parent}/${name}`, { recursive: true, force: true }).catch(() => {})),
  );
}

/** Reads its two arguments only when its input has ended without the word. */
const REAPER = `IFS= read -r word
[ "$word" = released ] && exit
for try in 1 2 3; do
  for path in ${NAMESPACES}/"$1"-*; do
    [ -e "$path" ] || continue
    for pid in $(ip netns pids "\${path##*/}"); do kill -s KILL "$pid"; done
    ip netns del "\${path##*/}"
  done
  sleep 0.1
done
rm -rf -- "$2"`;

export interface Reaper {
  readonly process: ChildProcess;
  /** All is gone already. */
  release(): void;
}

/** Cleans up when this process ends without having done so, whatever ended it. */
export function watchOverLab(prefix: string, directory: string): Reaper {
  const child = spawn("/bin/sh", ["-c", REAPER, "sh", prefix, directory], {
    stdio: ["pipe", "ignore", "ignore"],
    cwd: "/",
    // In a session of its own: Ctrl-C is for the test.
    detached: true,
  });
  child.stdin.on("error", () => {});
  child.unref();
  return { process: child, release: () => void child.stdin.end("released\n") };
}

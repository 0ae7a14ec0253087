import { spawn } from "node:child_process";
import { mkdirSync, realpathSync, rmdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { guarded } from "./io-failure.ts";
import { type InstallationPaths, PRIVATE_DIRECTORY, PRIVATE_MODE } from "./layout.ts";

/**
 * Walls around update plug-ins.
 *
 * A plug-in is code of whoever makes the product, and runs as the user who updates, often root. It needs the installation,
 * its processes and the network, and nothing else of the machine. So where Linux lets us it runs in namespaces of its own:
 * it sees the system's programs and libraries, read only; the installation, where it may write everything but what is
 * ours; and an empty /tmp. Nothing else has a name there: no home, no keys, no other installation, no socket of the system.
 * It has no capability, none comes back by a set-uid program, and the processes outside keep their environments and memory
 * to themselves, because it lives in another user namespace; they can be ended by it where they belong to the same user.
 *
 * Made by unshare, mount, pivot_root and setpriv (util-linux), so no native code of ours runs as root. The processes stay
 * those of the machine, and so does the network: a plug-in must be able to stop a service, start one that stays, and ask it
 * how it is. Not promised: that it keeps what it can read to itself.
 */
export type Confinement =
  | { readonly kind: "confined"; readonly prefix: readonly string[]; readonly places: ConfinedPlaces }
  /** `refused`: and it must not run so. */
  | { readonly kind: "unconfined"; readonly reason: string; readonly refused: boolean };

/** Without links on the way: inside they lead elsewhere. */
interface ConfinedPlaces {
  readonly installation: string;
  readonly archive: string;
}

/** What the administrator of this machine wants: `confined` (never without), `unconfined`, or whatever is possible. */
export const PLUGINS_VARIABLE = "LOCKSTEP_PLUGINS";
const ROOT_DIRECTORY = "plug-in-root";
const TRY_MS = 30_000;
/** Walls are put up by the system's own programs, whatever the PATH of whoever updates finds first. */
const SYSTEM_PROGRAMS = "/usr/bin";
const SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/** How plug-ins of an unpacked archive can be confined on this machine: tried, not guessed. Never throws. */
export async function findConfinement(
  paths: InstallationPaths,
  archive: string,
  environment: NodeJS.ProcessEnv,
): Promise<Confinement> {
  const wanted = environment[PLUGINS_VARIABLE];
  if (wanted === "unconfined")
    return { kind: "unconfined", reason: `${PLUGINS_VARIABLE}=unconfined`, refused: false };
  const refused = wanted === "confined";
  if (process.platform !== "linux")
    return { kind: "unconfined", reason: "this system is not Linux", refused };
  try {
    const places = { installation: realpathSync(paths.root), archive: realpathSync(archive) };
    const root = join(places.installation, PRIVATE_DIRECTORY, ROOT_DIRECTORY);
    const node = dirname(realpathSync(process.execPath));
    const prefix = [
      ...[`${SYSTEM_PROGRAMS}/unshare`, "--user", "--map-root-user", "--mount", "--ipc", "--"],
      ...["/bin/sh", "-c", SCRIPT, "sh", root, places.installation, places.archive, node],
    ];
    const problem = await inConfinement(paths, () => attempt([...prefix, process.execPath, "--version"]));
    if (problem !== null) return { kind: "unconfined", reason: problem, refused };
    return { kind: "confined", prefix, places };
  } catch (error) {
    return { kind: "unconfined", reason: error instanceof Error ? error.message : String(error), refused };
  }
}

/** Runs something that needs the directory on which the other root is put up. Throws INSTALLATION_NOT_WRITABLE and its kin. */
export async function inConfinement<T>(paths: InstallationPaths, run: () => Promise<T>): Promise<T> {
  const root = join(paths.privateDirectory, ROOT_DIRECTORY);
  guarded(root, "making", () => mkdirSync(root, { recursive: true, mode: PRIVATE_MODE }));
  try {
    return await run();
  } finally {
    try {
      rmdirSync(root);
    } catch {
      // Whoever updates next takes it away.
    }
  }
}

/** The environment that means something inside. */
export function confinedEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { XDG_RUNTIME_DIR: _, DBUS_SESSION_BUS_ADDRESS: __, ...rest } = environment;
  return { ...rest, HOME: "/tmp", TMPDIR: "/tmp", TEMP: "/tmp", TMP: "/tmp" };
}

/** Null when it succeeded, else what was said. */
function attempt([program = "", ...rest]: readonly string[]): Promise<string | null> {
  return new Promise((resolve) => {
    const child = spawn(program, rest, {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: TRY_MS,
      cwd: "/",
      env: { PATH: SYSTEM_PATH },
    });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-1000);
    });
    child.once("error", (error) => resolve(error.message));
    child.once("close", (status, signal) =>
      resolve(
        status === 0
          ? null
          : said.trim().split("\n").at(0) || `it ended with ${signal ?? `status ${status}`}`,
      ),
    );
  });
}

/**
 * Arguments: where the new root is put up, the installation, the archive, the directory of Node, then what to run. Mounts are
 * those of this process alone and end with it and what it starts. Everything is read only before the installation appears.
 */
const SCRIPT = `set -eu
OWN_PATH=$PATH
PATH=${SYSTEM_PATH}
root=$1 installation=$2 archive=$3 node=$4
shift 4
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev plug-in "$root"
cd "$root"
mkdir old proc dev tmp etc
for name in usr bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"
  elif [ -d "/$name" ]; then mkdir "$name"; mount --rbind "/$name" "$name"; fi
done
for name in ld.so.cache localtime hosts resolv.conf nsswitch.conf passwd group services protocols ssl/openssl.cnf; do
  [ -f "/etc/$name" ] || continue
  mkdir -p "etc/$(dirname "$name")"; : > "etc/$name"; mount --bind "/etc/$name" "etc/$name"
done
for name in alternatives ssl/certs; do
  [ -d "/etc/$name" ] || continue
  mkdir -p "etc/$name"; mount --rbind "/etc/$name" "etc/$name"
done
for name in null zero full random urandom; do
  : > "dev/$name"; mount --bind "/dev/$name" "dev/$name"
done
ln -s /proc/self/fd dev/fd
mount --rbind /proc proc
echo 0 > /proc/sys/user/max_user_namespaces
mount -t tmpfs -o mode=1777,size=256m,nosuid,nodev plug-in tmp
mkdir -p ".$node"; mount --rbind "$node" ".$node"
pivot_root . old
while read -r _ _ _ _ point _; do
  case $point in / | /tmp | /old | /old/*) ;; *) mount -o remount,bind,ro "$point" ;; esac
done < /proc/self/mountinfo
mkdir -p "$installation"; mount --rbind "/old$installation" "$installation"
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev plug-in "$installation/.lockstep"
mkdir -p "$archive"; mount --rbind "/old$archive" "$archive"; mount -o remount,bind,ro "$archive"
for name in InstallState.config .softwarerevision.viv softwarerevision.viv update.log update.lock; do
  [ -f "$installation/$name" ] || continue
  mount --bind "$installation/$name" "$installation/$name"; mount -o remount,bind,ro "$installation/$name"
done
mount -o remount,bind,ro "$installation/.lockstep"
cd "$installation"
umount -l /old
mount -o remount,bind,ro /
PATH=$OWN_PATH exec ${SYSTEM_PROGRAMS}/setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- "$@"
`;

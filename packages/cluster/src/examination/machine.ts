import { accessSync, constants, readFileSync, statfsSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { NodeFinding, ResourceType, VirtualServerDefinition } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";
import { readClusterKey } from "../node/cluster-key.ts";
import { keyDigest } from "./cluster-key.ts";
import { failed, ok, warning } from "./finding.ts";

/** What each type of resource runs, and what it may need to be allowed; from capabilities(7). */
const NEEDS: Readonly<
  Record<ResourceType, { tools: readonly string[]; capabilities: readonly Capability[] }>
> = {
  "ip-address": { tools: ["ip", "arping"], capabilities: ["CAP_NET_ADMIN", "CAP_NET_RAW"] },
  "network-name": { tools: [], capabilities: [] },
  "generic-service": { tools: [], capabilities: ["CAP_KILL"] },
  "file-share": { tools: ["smbd", "testparm"], capabilities: [] },
  mount: { tools: ["mount", "umount"], capabilities: ["CAP_SYS_ADMIN"] },
  ocf: { tools: ["sh"], capabilities: [] },
};

const PACKAGES: Readonly<Record<string, string>> = {
  ip: "iproute2",
  arping: "iputils-arping",
  smbd: "samba",
  testparm: "samba-common-bin",
  mount: "mount",
  umount: "mount",
};

/** Their bits in /proc/self/status. */
const CAPABILITY_BITS = {
  CAP_KILL: 5,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_NICE: 23,
} as const;
type Capability = keyof typeof CAPABILITY_BITS;

const typesOf = (servers: readonly VirtualServerDefinition[]): Set<ResourceType> =>
  new Set(servers.flatMap(({ resources }) => resources.map(({ type }) => type)));

/** Whether the programs are there that the resources of the cluster's virtual servers run. */
export function examineTools(
  servers: readonly VirtualServerDefinition[],
  path: string = process.env.PATH ?? "",
): NodeFinding[] {
  const types = [...typesOf(servers)];
  const units = servers.some(({ resources }) =>
    resources.some(({ settings }) => settings.unit !== undefined),
  );
  const tools = new Set([...types.flatMap((type) => NEEDS[type].tools), ...(units ? ["systemctl"] : [])]);
  const missing = [...tools].filter((tool) => findProgram(tool, path) === null);
  if (missing.length === 0)
    return [ok("tools", tools.size === 0 ? "none is needed" : `found ${[...tools].join(", ")}`)];
  return missing.map((tool) =>
    failed(
      "tools",
      `${tool} is not on the PATH`,
      PACKAGES[tool] === undefined
        ? `Install ${tool}.`
        : `Install it: on Debian the package ${PACKAGES[tool]}.`,
    ),
  );
}

/** Also where administrators' programs live, which is not on everybody's PATH. */
export function findProgram(name: string, path: string): string | null {
  for (const directory of [...path.split(delimiter), "/usr/sbin", "/sbin"]) {
    try {
      const program = join(directory, name);
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Not there; the next one.
    }
  }
  return null;
}

/** Whether this account may do what the resources need. */
export function examinePermissions(
  servers: readonly VirtualServerDefinition[],
  effective: bigint | null = effectiveCapabilities(),
): NodeFinding[] {
  if (effective === null) return [ok("permissions", "this system has no capabilities to look at")];
  const has = (capability: Capability) => (effective & (1n << BigInt(CAPABILITY_BITS[capability]))) !== 0n;
  const needed = new Set([...typesOf(servers)].flatMap((type) => NEEDS[type].capabilities));
  const lacking = [...needed].filter((capability) => !has(capability));
  const findings =
    lacking.length === 0
      ? [
          ok(
            "permissions",
            needed.size === 0 ? "none is needed" : `this account has ${[...needed].join(", ")}`,
          ),
        ]
      : [
          failed(
            "permissions",
            `this account lacks ${lacking.join(", ")}`,
            "Run the node's daemon as root, or give it these capabilities in its systemd unit (AmbientCapabilities).",
          ),
        ];
  if (!has("CAP_SYS_NICE"))
    findings.push(
      warning(
        "permissions",
        "without CAP_SYS_NICE the guard has no real-time priority and may be scheduled late",
        "Give it to the node's daemon, or keep guardDelayMs large.",
      ),
    );
  return findings;
}

function effectiveCapabilities(): bigint | null {
  try {
    const [, digits] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
    return digits === undefined ? null : BigInt(`0x${digits}`);
  } catch {
    return null;
  }
}

const CLOCK_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/** The kernel falls back to these when it found the better ones unsteady. */
const UNSTEADY = ["jiffies", "refined-jiffies"];

/** Whether the kernel counts time by something that can be trusted. */
export function examineClockSource(file: string = CLOCK_SOURCE): NodeFinding[] {
  let source: string;
  try {
    source = readFileSync(file, "utf8").trim();
  } catch {
    return [];
  }
  return UNSTEADY.includes(source)
    ? [
        failed(
          "clock",
          `the kernel counts time by ${source}, because it found nothing steadier`,
          "Look into the kernel's log for why its clock source was given up; the lease rests on the clock's rate.",
        ),
      ]
    : [ok("clock", `the kernel counts time by ${source}`)];
}

/** Less space than this will not hold a day of history and checkpoints. */
const SPACE_LOW_BYTES = 100_000_000;

/** The directory that the daemon keeps its own things in. */
export function examineDirectory(directory: string): NodeFinding[] {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "ENOENT"
      ? [ok("data", `${directory} will be made`)]
      : [failed("data", `${directory} cannot be written`, "The account of the node's daemon must own it.")];
  }
  const { bavail, bsize } = statfsSync(directory);
  return bavail * bsize >= SPACE_LOW_BYTES
    ? [ok("data", `${directory} can be written`)]
    : [
        warning(
          "data",
          `only ${Math.floor((bavail * bsize) / 1e6)} MB are free below ${directory}`,
          "Make room: without it checkpoints and history are lost.",
        ),
      ];
}

/** The cluster's key on this machine: there, private, and the same as everybody's. */
export async function examineKey(file: string, digest: string | null): Promise<NodeFinding[]> {
  let key: Buffer;
  try {
    key = await readClusterKey(file);
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    const hint = isLockstepError(error) ? error.hint : undefined;
    return [failed("key", detail, hint ?? "Copy it from a node of the cluster, with mode 0600.")];
  }
  const findings: NodeFinding[] = [];
  const mode = statSync(file).mode & 0o777;
  if ((mode & 0o077) !== 0)
    findings.push(
      failed(
        "key",
        `${file} has mode ${mode.toString(8)}: others on this machine can read it`,
        `chmod 600 ${file}, and take a new key if somebody has read it.`,
      ),
    );
  if (digest !== null && keyDigest(key) !== digest)
    findings.push(
      failed(
        "key",
        `${file} is not the key of this cluster`,
        "Copy the file from a node that belongs to the cluster, over a channel that you trust.",
      ),
    );
  return findings.length > 0 ? findings : [ok("key", `${file} is private and the cluster's`)];
}

import { existsSync, statSync } from "node:fs";
import { connect } from "node:net";
import type { NodeFinding, ResourceDefinition, VirtualServerDefinition } from "@lockstep/core";
import { runBounded } from "../resources/bounded-command.ts";
import { readMountSettings } from "../resources/mount-settings.ts";
import { failed, ok, warning } from "./finding.ts";
import { findProgram } from "./machine.ts";

/**
 * Whether this machine gets at what a virtual server mounts and shares, looked at while another node has it: nothing is
 * mounted. Whatever lies on a volume of the virtual server itself is not there on a passive node, and is not looked at.
 */
const REACH_MS = 3_000;
const ACCESS_MS = 10_000;
const NFS_PORT = 2049;
const SMB_PORT = 445;

type Resources = VirtualServerDefinition["resources"];

export async function examineMount(
  id: string,
  { settings: given }: ResourceDefinition,
  resources: Resources,
): Promise<NodeFinding[]> {
  const { settings } = readMountSettings(given);
  const { device, directory, type, options } = settings;
  const port = Number(options.find((each) => each.startsWith("port="))?.slice("port=".length));
  const [, smbHost] = /^\/\/([^/]+)\/./.exec(device) ?? [];
  if (smbHost !== undefined) return examineSmb(id, device, smbHost, port || SMB_PORT, options);
  const [, nfsHost] = /^\[?([^/[\]]+?)\]?:\//.exec(device) ?? [];
  if (nfsHost !== undefined) {
    const problem = await reach(nfsHost, port || NFS_PORT);
    return [
      problem === null
        ? ok(id, `${nfsHost} answers for ${device}`)
        : failed(
            id,
            `${device} cannot be reached: ${problem}`,
            "This node could not mount it in a takeover. Look at the way to that server, and at its firewall.",
          ),
    ];
  }
  if (!device.startsWith("/") || isOnVolume(device, resources)) return [];
  return [examineLocal(id, device, directory, type, options)];
}

function examineLocal(
  id: string,
  device: string,
  directory: string,
  type: string,
  options: readonly string[],
): NodeFinding {
  const isDevice = device.startsWith("/dev/");
  const hint = isDevice
    ? "The shared disk must be visible to every node, under the same name (/dev/disk/by-id/…)."
    : "It must be there on every node.";
  try {
    const found = statSync(device);
    if (type === "bind") return ok(id, `${device} is there for ${directory}`);
    if (!found.isBlockDevice() && !found.isFile())
      return failed(id, `${device} is no block device`, "Name the shared disk as this node sees it.");
    if (!isDevice && !options.includes("loop"))
      return warning(id, `${device} is an image, and the option loop is missing`, "Add loop to its options.");
  } catch {
    return failed(id, `${device} is not there`, hint);
  }
  return ok(id, `${device} is there for ${directory}`);
}

/** By smbclient with the credentials of the mount where both are there; else whether the server answers at all. */
async function examineSmb(
  id: string,
  share: string,
  host: string,
  port: number,
  options: readonly string[],
): Promise<NodeFinding[]> {
  const problem = await reach(host, port);
  const hint =
    "This node could not mount it in a takeover. Look at the way there, and at what the server allows.";
  if (problem !== null) return [failed(id, `${share} cannot be reached: ${problem}`, hint)];
  const client = findProgram("smbclient", process.env.PATH ?? "");
  const file = options.find((each) => /^cred(entials)?=/.test(each))?.replace(/^[^=]+=/, "");
  if (file !== undefined && !existsSync(file))
    return [failed(id, `the credentials ${file} are not there`, "Copy them to every node, mode 0600.")];
  const who = file !== undefined ? ["-A", file] : options.includes("guest") ? ["-N"] : null;
  if (client === null || who === null) return [ok(id, `${host} answers for ${share}`)];
  const asked = await runBounded(client, [share, "-p", String(port), ...who, "-c", "ls"], {
    limitMs: ACCESS_MS,
  });
  if (asked.status === 0) return [ok(id, `${share} is open to this node`)];
  const said = `${asked.output}\n${asked.errorOutput}`.trim().split("\n").at(-1) ?? "";
  const why = asked.hasTimedOut ? `no answer within ${ACCESS_MS} ms` : said;
  return [failed(id, `${share} is not open to this node: ${why}`, hint)];
}

/** What a share of our own needs beside its server. */
export function examineShare(
  id: string,
  { settings }: ResourceDefinition,
  resources: Resources,
): NodeFinding[] {
  const findings: NodeFinding[] = [];
  for (const name of ["path", "userDatabase", "credentialsFile"] as const) {
    const file = settings[name];
    if (typeof file !== "string" || !file.startsWith("/") || isOnVolume(file, resources)) continue;
    findings.push(
      existsSync(file)
        ? ok(id, `${file} is there`)
        : failed(
            id,
            `${name} ${file} is not there`,
            "It must be there on every node, or on a volume of its own.",
          ),
    );
  }
  return findings;
}

const isOnVolume = (path: string, resources: Resources) =>
  resources.some(({ type, settings: { directory } }) => {
    return type === "mount" && typeof directory === "string" && `${path}/`.startsWith(`${directory}/`);
  });

/** Null: it takes connections. */
function reach(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: REACH_MS });
    const end = (problem: string | null) => {
      socket.destroy();
      resolve(problem);
    };
    socket.once("connect", () => end(null));
    // Who stood still itself looks first whether it was answered meanwhile.
    socket.once("timeout", () => setImmediate(() => end(`no answer at port ${port} within ${REACH_MS} ms`)));
    socket.once("error", (error) => end(error.message));
  });
}

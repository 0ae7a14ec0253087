import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { processesIn } from "./lab-namespaces.ts";

/** What is so on a host at this moment, as the kernel tells by /proc; each takes well below a millisecond. */
interface LookedAt {
  readonly anchor: number;
  readonly namespace: string;
}

/** Whether the host has an address and could answer for it. */
export function hasAddress({ anchor }: LookedAt, address: string): boolean {
  const net = `/proc/${anchor}/net`;
  if (address.includes(":")) return read(`${net}/if_inet6`).includes(packed(address));
  return isLocal(read(`${net}/fib_trie`), address);
}

/** By port of those asked for: the processes that listen there. */
export function listenersOn(
  host: LookedAt,
  ports: readonly number[],
): { readonly port: number; readonly pid: number }[] {
  const net = `/proc/${host.anchor}/net`;
  return `${read(`${net}/tcp`)}${read(`${net}/tcp6`)}`.split("\n").flatMap((line) => {
    const [, own = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    const port = Number.parseInt(own.slice(own.lastIndexOf(":") + 1), 16);
    return state === "0A" && ports.includes(port) ? [{ port, pid: holderOf(host.namespace, inode) }] : [];
  });
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

/** fib_trie names a leaf, and below it how it is reached. */
function isLocal(trie: string, address: string): boolean {
  return new RegExp(`-- ${address.replaceAll(".", "\\.")}\\n\\s+/32 host LOCAL`).test(trie);
}

/** As if_inet6 writes it: 32 digits. */
function packed(address: string): string {
  const [head = "", tail = ""] = address.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === "" ? [] : tail.split(":");
  const middle = Array.from({ length: 8 - before.length - after.length }, () => "0");
  return [...before, ...middle, ...after].map((group) => group.padStart(4, "0")).join("");
}

/** By host and socket: finding out whose a socket is takes a walk through all processes. */
const holders = new Map<string, number>();

function holderOf(namespace: string, inode: string): number {
  const key = `${namespace} ${inode}`;
  const known = holders.get(key);
  if (known !== undefined && holds(known, inode)) return known;
  const pid = processesIn(namespace).find((each) => holds(each, inode)) ?? 0;
  holders.set(key, pid);
  return pid;
}

function holds(pid: number, inode: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`;
      } catch {
        return false;
      }
    });
  } catch {
    return false;
  }
}

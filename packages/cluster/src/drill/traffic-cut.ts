import { spawn } from "node:child_process";
import { lookup } from "node:dns/promises";
import { accessSync, constants } from "node:fs";
import { isIPv6 } from "node:net";
import { networkInterfaces } from "node:os";
import type { CoordinationConfig } from "../coordination/open.ts";
import { refusalText, startOrRefusal } from "../refused-start.ts";

/**
 * Cuts this node's traffic for a bounded time. That it ends is the kernel's own doing: what is cut are the elements of sets
 * whose time-outs it counts, so neither the daemon's death nor that of any helper leaves a machine that nobody can reach.
 * What stays of it, empty tables, is taken away by a shell that sleeps, and else by the next cut.
 */
const TABLE = "lockstep_drill";
const NFT = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

const seconds = (ms: number) => `${Math.max(1, Math.ceil(ms / 1000))}s`;

const FORGET = `add table inet ${TABLE}\ndelete table inet ${TABLE}\nadd table arp ${TABLE}\ndelete table arp ${TABLE}\n`;

/** Everything but the loopback, in both directions; ARP as well. Null: there is nothing to cut. */
export function networkCut(lastsMs: number): string | null {
  const devices = new Set(Object.keys(networkInterfaces()).map((name) => name.split(":")[0] ?? name));
  devices.delete("lo");
  if (devices.size === 0) return null;
  const elements = [...devices].map((name) => `"${name}" timeout ${seconds(lastsMs)}`).join(", ");
  const table = (family: string) => `table ${family} ${TABLE} {
    set cut { type ifname; flags timeout; elements = { ${elements} }; }
    chain in { type filter hook input priority -300; policy accept; iifname @cut drop; }
    chain out { type filter hook output priority -300; policy accept; oifname @cut drop; }
  }\n`;
  return FORGET + table("inet") + table("arp");
}

/** What goes to the store and what comes from it, wherever its members are. Null: it is not reached by TCP. */
export async function storeCut(config: CoordinationConfig, lastsMs: number): Promise<string | null> {
  const places = await findStore(config);
  if (places.length === 0) return null;
  const families = [
    ["4", "ipv4_addr", "ip", places.filter(({ address }) => !isIPv6(address))],
    ["6", "ipv6_addr", "ip6", places.filter(({ address }) => isIPv6(address))],
  ] as const;
  const used = families.filter(([, , , found]) => found.length > 0);
  const sets = used.map(([suffix, type, , found]) => {
    const elements = found.map(({ address, port }) => `${address} . ${port} timeout ${seconds(lastsMs)}`);
    return `set store${suffix} { type ${type} . inet_service; flags timeout; elements = { ${elements.join(", ")} }; }`;
  });
  const rules = (address: string, port: string) =>
    used.map(([suffix, , word]) => `${word} ${address} . tcp ${port} @store${suffix} drop;`).join(" ");
  return `${FORGET}table inet ${TABLE} {
    ${sets.join("\n    ")}
    chain in { type filter hook input priority -300; policy accept; ${rules("saddr", "sport")} }
    chain out { type filter hook output priority -300; policy accept; ${rules("daddr", "dport")} }
  }\n`;
}

async function findStore(config: CoordinationConfig): Promise<{ address: string; port: number }[]> {
  const urls = config.store === "etcd" ? config.endpoints : [config.url ?? ""];
  const defaultPort = config.store === "etcd" ? 2379 : 5432;
  const found = urls.map(async (text) => {
    const url = URL.parse(text);
    const host = url?.hostname.replace(/^\[|\]$/g, "") ?? "";
    if (host === "") return [];
    const port = Number(url?.port || defaultPort);
    return (await lookup(host, { all: true })).map(({ address }) => ({ address, port }));
  });
  const unique = new Map(
    (await Promise.all(found)).flat().map((each) => [`${each.address} ${each.port}`, each]),
  );
  return [...unique.values()];
}

/** Puts a cut into force. Resolves to why that cannot be; null: it is in force. */
export async function cutTraffic(rules: string, lastsMs: number): Promise<string | null> {
  const problem = await runNft(["-f", "-"], rules);
  if (problem !== null) return problem;
  const shell = startOrRefusal(() =>
    spawn("/bin/sh", ["-c", TIDY, "sh", seconds(lastsMs + 1000), FORGET, findNft() ?? ""], {
      cwd: "/",
      stdio: "ignore",
      detached: true,
    }),
  );
  // The kernel ends the cut in any case; only an empty table is left.
  if (shell instanceof Error) return null;
  shell.on("error", () => {});
  shell.unref();
  return null;
}

const TIDY = 'sleep "${1%s}"; printf %s "$2" | "$3" -f -';

/** Why traffic cannot be cut here; null: it can. Changes nothing. */
export const whyNoCut = (rules: string): Promise<string | null> => runNft(["--check", "-f", "-"], rules);

function runNft(args: readonly string[], input: string): Promise<string | null> {
  const nft = findNft();
  if (nft === null) return Promise.resolve("the program nft is not on this machine");
  return new Promise((resolve) => {
    const child = startOrRefusal(() => spawn(nft, args, { cwd: "/", stdio: ["pipe", "ignore", "pipe"] }));
    if (child instanceof Error) {
      resolve(`nft cannot be started: ${refusalText(child)}`);
      return;
    }
    let told = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      told += text;
    });
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    child.once("error", (error) => resolve(`nft cannot be started: ${refusalText(error)}`));
    child.once("close", (code) =>
      resolve(code === 0 ? null : `nft: ${told.trim().split("\n")[0] || `exit status ${code}`}`),
    );
  });
}

function findNft(): string | null {
  return (
    NFT.find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    }) ?? null
  );
}

import { parentPort, workerData } from "node:worker_threads";
import { labNow } from "./lab.ts";
import { hasAddress, listenersOn } from "./lab-look.ts";
import type { TruthQuestion, TruthSample } from "./lab-truth.ts";

const { hosts, addresses, ports, everyMs } = workerData as TruthQuestion;
const port = parentPort;
if (port === null) throw new Error("runs as a worker only");

const samples: TruthSample[] = [];

const timer = setInterval(() => samples.push(look()), everyMs);
port.on("message", () => {
  clearInterval(timer);
  samples.push(look());
  port.postMessage(samples);
});
samples.push(look());
port.postMessage("begun");

function look(): TruthSample {
  const owners: Record<string, string[]> = Object.fromEntries(addresses.map((address) => [address, []]));
  const listeners: Record<string, { host: string; pid: number }[]> = Object.fromEntries(
    ports.map((number) => [number, []]),
  );
  const at = labNow();
  for (const host of hosts) {
    for (const [address, found] of Object.entries(owners))
      if (hasAddress(host, address)) found.push(host.name);
    if (ports.length === 0) continue;
    for (const found of listenersOn(host, ports))
      listeners[found.port]?.push({ host: host.name, pid: found.pid });
  }
  // One look is not one moment: the first may have lost it before the last had it. Whoever still has it had it meanwhile.
  for (const [address, found] of Object.entries(owners))
    if (found.length > 1)
      owners[address] = found.filter((name) => hosts.some((h) => h.name === name && hasAddress(h, address)));
  return { at, owners, listeners };
}

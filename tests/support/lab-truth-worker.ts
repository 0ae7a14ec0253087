import { parentPort, workerData } from "node:worker_threads";
import { labNow } from "./lab.ts";
import { hasAddress, listenersOn } from "./lab-look.ts";
import type { TruthQuestion, TruthSample } from "./lab-truth.ts";

const { hosts, addresses, ports, everyMs } = workerData as TruthQuestion;
const port = parentPort;
if (port === null) throw new Error("runs as a worker only");

const samples: TruthSample[] = [];

const sample = () => {
  const found = lookAtOnce();
  samples.push(found);
  port.postMessage(found.at);
};
const timer = setInterval(sample, everyMs);
port.on("message", () => {
  clearInterval(timer);
  samples.push(lookAtOnce());
  port.postMessage(samples);
});
sample();

/**
 * One look is not one moment: the first host may have lost it before the last had it, the more so when this thread stood
 * still in between. What two looks one after the other saw alike was so between them.
 */
function lookAtOnce(): TruthSample {
  for (let before = look(); ; ) {
    const { at, ...found } = look();
    const { at: _, ...former } = before;
    if (JSON.stringify(found) === JSON.stringify(former)) return { at, ...found };
    before = { at, ...found };
  }
}

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
  return { at, owners, listeners };
}

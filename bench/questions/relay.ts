import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, cpSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { InstallationList, Semaphore } from "@lockstep/protocol";
import { type Measured, type Sample, timeProcess } from "../harness.ts";
import { filesBelow, laterRelease, publishedPackage } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

/**
 * What many installations behind one relay cost the line to the hub, against one installation without a relay. The line is
 * counted where it can be: by something between that hands every byte on, in both directions.
 */
const OLD = "typescript@5.8.3";
const NEW = "typescript@5.9.3";
/** 50 takes minutes and some gigabytes of disk: LOCKSTEP_BENCH_INSTALLATIONS=50. */
const INSTALLATIONS = Number(process.env.LOCKSTEP_BENCH_INSTALLATIONS ?? 5);
const AT_ONCE = 4;
const SMALL_FILES = 20;

interface CountedLine {
  readonly url: string;
  /** Bytes in both directions since the last time. */
  take(): number;
  close(): void;
}

async function countedLine(hub: string): Promise<CountedLine> {
  const { hostname, port } = new URL(hub);
  const open = new Set<Socket>();
  let bytes = 0;
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(from);
      from.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      from.once("error", () => to.destroy());
      from.once("close", () => open.delete(from));
      from.pipe(to);
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    take() {
      const taken = bytes;
      bytes = 0;
      return taken;
    },
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

async function startRelay(hub: string, data: string): Promise<{ url: string; process: ChildProcess }> {
  const [program, args] = lockstep("relay", "--hub", hub, "--data", data, "--listen", "127.0.0.1:0");
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "ignore"] });
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    const ready = /^ready (\S+)$/m.exec(chunk.toString());
    if (ready?.[1] !== undefined) return { url: ready[1], process: child };
  }
  throw new Error("the relay ended without a word");
}

/**
 * Waits until the hub has heard of every one that it is in step. A relay holds such reports for a minute at most; they belong to what an
 * update costs. Asked past the line that is counted.
 */
async function untilHeard(hub: string): Promise<void> {
  const until = performance.now() + HEARD_MS;
  const ask = async <T>(path: string) => (await (await fetch(`${hub}${path}`)).json()) as T;
  for (;;) {
    const { revision } = await ask<Semaphore>("/v1/revision");
    const { installations } = await ask<InstallationList>("/v1/installations");
    const heard = installations.filter(
      (each) => basename(each.directory).startsWith("many-") && each.revision === revision,
    );
    if (heard.length === INSTALLATIONS) return;
    if (performance.now() > until)
      throw new Error(`the hub heard of ${heard.length} of ${INSTALLATIONS} installations`);
    await sleep(500);
  }
}

const HEARD_MS = 120_000;

/** A release in which some files have one line more. */
function smallChange(source: string, target: string): string {
  cpSync(source, target, { recursive: true, preserveTimestamps: true });
  const files = filesBelow(target).filter((path) => /\.d\.ts$/.test(path));
  for (const path of files.slice(0, SMALL_FILES)) appendFileSync(join(target, path), "// 2.0.1\n");
  return target;
}

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const hub = await startHub(join(directory, "hub"));
    const direct = await countedLine(hub.url);
    const shared = await countedLine(hub.url);
    const relay = await startRelay(shared.url, join(directory, "relay"));
    const loadRelease = (source: string, version: string) => {
      const [program, args] = lockstep("load", source, "--hub", hub.url, "--module", "TYPESCRIPT");
      return timeProcess(program, [...args, "--version", version, "--assign", "**=Server", "--yes"]);
    };
    const one = join(directory, "one");
    const many = Array.from({ length: INSTALLATIONS }, (_, n) => join(directory, `many-${n}`));
    const all = async (act: (place: string) => Promise<Sample>) => {
      const waiting = [...many];
      const began = performance.now();
      const samples: Sample[] = [];
      const work = async () => {
        for (let place = waiting.shift(); place !== undefined; place = waiting.shift())
          samples.push(await act(place));
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      const cpuMs = samples.reduce((sum, sample) => sum + (sample.cpuMs ?? 0), 0);
      return { wallMs: performance.now() - began, cpuMs, peakBytes: null };
    };
    const install = (place: string, url: string, ...more: string[]) =>
      timeProcess(...lockstep("install", place, "--hub", url, "--role", "Server", ...more));
    const update = (place: string) => timeProcess(...lockstep("update", place));
    try {
      await loadRelease(publishedPackage(OLD), "1.0.0");
      const measured: Measured[] = [];
      /** Also what the line carried since the last time: that there is a release. */
      const counted = async (name: string, line: CountedLine, act: () => Promise<Sample>) => {
        const sample = await act();
        if (line === shared) await untilHeard(hub.url);
        const lineBytes = line.take();
        measured.push({ name, samples: [{ ...sample, notes: { "bytes on the line": lineBytes } }] });
        return lineBytes;
      };
      const oneInstall = await counted("first installation, one", direct, () => install(one, direct.url));
      const manyInstall = await counted(`first installation, ${INSTALLATIONS} behind a relay`, shared, () =>
        all((place) => install(place, shared.url, "--relay", relay.url)),
      );
      shared.take();
      await loadRelease(laterRelease(OLD, NEW), "2.0.0");
      // The many first, and as soon as it is loaded: while the hub still makes the step. The one has it ready.
      const manyUpdate = await counted(`update, ${INSTALLATIONS} behind a relay`, shared, () => all(update));
      const oneUpdate = await counted("update, one", direct, () => update(one));
      shared.take();
      await loadRelease(smallChange(laterRelease(OLD, NEW), join(directory, "small")), "2.0.1");
      const manySmall = await counted(`small update, ${INSTALLATIONS} behind a relay`, shared, () =>
        all(update),
      );
      const oneSmall = await counted("small update, one", direct, () => update(one));
      return {
        title: "Many installations behind one relay",
        text: `${OLD} and then ${NEW}; bytes in both directions on the line to the hub, headers, reports and the question for what is new included, until the hub has heard of all. The hub still makes the step when the many ask for it, and has it when the one does. Small: one line more in ${SMALL_FILES} files.`,
        measured,
        findings: [
          { what: "first installation, line", found: manyInstall / oneInstall, goal: 1.1, unit: " times" },
          { what: "update, line", found: manyUpdate / oneUpdate, goal: 1.1, unit: " times" },
          {
            what: "update, line, for each installation more",
            ...{ found: (manyUpdate - oneUpdate) / (INSTALLATIONS - 1), goal: 1_000, unit: " B" },
          },
          { what: "small update, line", found: manySmall / oneSmall, goal: 1.1, unit: " times" },
          {
            what: "small update, line, for each installation more",
            found: (manySmall - oneSmall) / (INSTALLATIONS - 1),
            goal: 1_000,
            unit: " B",
          },
        ],
      };
    } finally {
      relay.process.kill("SIGTERM");
      await once(relay.process, "exit");
      direct.close();
      shared.close();
      await hub.stop();
    }
  });
}

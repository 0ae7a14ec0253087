import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Measured, median, ratio, type Sample, sideBySide, timeProcess } from "../harness.ts";
import { laterRelease, publishedPackage } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

const OLD = "15.5.4";
const NEW = "16.4.5";

/** What `lockstep update --json` says of its own phases. */
interface UpdateResult {
  readonly switchMs: number;
  readonly sums: { readonly add: number; readonly replace: number; readonly remove: number };
}

function note(measured: Measured, name: string): number {
  return median(measured.samples.map((sample) => sample.notes?.[name] ?? Number.NaN));
}

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const from = publishedPackage(`next@${OLD}`);
    const to = laterRelease(`next@${OLD}`, `next@${NEW}`);
    const hub = await startHub(join(directory, "hub"));
    const load = (source: string, version: string) =>
      timeProcess(
        ...lockstep(
          "load",
          source,
          "--hub",
          hub.url,
          "--module",
          "NEXT",
          "--version",
          version,
          "--assign",
          "**=Server",
          "--yes",
        ),
      );
    const ours = join(directory, "ours");
    const former = join(directory, "former");
    const theirs = join(directory, "theirs");
    try {
      // P6 is about laying files down. What a step saves, and costs, is the question of transfer.ts.
      await timeProcess(...lockstep("settings", "set", "Common/Transfer/Steps=false", "--hub", hub.url));
      await load(from, OLD);
      await timeProcess(...lockstep("install", former, "--hub", hub.url, "--role", "Server"));
      await load(to, NEW);
      const step = await sideBySide(
        [
          {
            name: "rsync -a --delete, then sync",
            prepare: () => {
              rmSync(theirs, { recursive: true, force: true });
              cpSync(from, theirs, { recursive: true, preserveTimestamps: true });
              execFileSync("sync");
            },
            run: () =>
              timeProcess("bash", ["-c", `rsync -a --delete ${to}/ ${theirs}/ && sync -f ${theirs}`]),
          },
          {
            name: "lockstep update (hub, transfer, redo log and fsync included)",
            prepare: () => {
              rmSync(ours, { recursive: true, force: true });
              // A copy has other inodes and times than the index remembers: the installation is made, not copied.
              execFileSync("cp", ["-a", former, ours]);
              execFileSync(...lockstep("verify", ours), { stdio: "ignore" });
              execFileSync("sync");
            },
            run: async (): Promise<Sample> => {
              const sample = await timeProcess(...lockstep("update", ours, "--json"));
              const { switchMs, sums } = JSON.parse(sample.stdout) as UpdateResult;
              const { add, replace, remove } = sums;
              return { ...sample, notes: { switchMs, switched: add + replace + remove } };
            },
          },
        ],
        { rounds: 5, warmUp: true },
      );
      const archive = join(directory, "release.tar");
      execFileSync("tar", ["-cf", archive, "-C", to, "."]);
      const fresh = await sideBySide(
        [
          {
            name: "tar x, then sync",
            prepare: () => {
              rmSync(theirs, { recursive: true, force: true });
              mkdirSync(theirs);
              execFileSync("sync");
            },
            run: () => timeProcess("bash", ["-c", `tar -xf ${archive} -C ${theirs} && sync -f ${theirs}`]),
          },
          {
            name: "lockstep install (hub and transfer included)",
            prepare: () => {
              rmSync(ours, { recursive: true, force: true });
              execFileSync("sync");
            },
            run: () => timeProcess(...lockstep("install", ours, "--hub", hub.url, "--role", "Server")),
          },
        ],
        { rounds: 5, warmUp: true },
      );
      const [rsync, update] = step;
      const [tar, install] = fresh;
      if (rsync === undefined || update === undefined || tar === undefined || install === undefined)
        throw new Error("nothing was measured");
      const memory =
        Math.max(...[...update.samples, ...install.samples].map((sample) => sample.peakBytes ?? 0)) / 2 ** 20;
      return {
        title: "A version step, and a fresh installation",
        text: `next ${OLD} → ${NEW} (${execFileSync("bash", ["-c", `diff -rq ${from} ${to} | wc -l`], { encoding: "utf8" }).trim()} paths differ), then ${NEW} into an empty directory; durable at the end. Contents travel whole here; what deltas save is measured under Transfer.`,
        measured: [...step, ...fresh],
        findings: [
          {
            what: "version step against rsync and sync (P6)",
            found: ratio(update, rsync),
            goal: 1,
            unit: " times",
          },
          {
            what: "fresh installation against tar and sync (P6)",
            found: ratio(install, tar),
            goal: 1.2,
            unit: " times",
          },
          {
            what: `time in which a reader could see old and new files side by side, for each 3,000 of ${note(update, "switched").toLocaleString("en")} files (P10)`,
            found: (note(update, "switchMs") / note(update, "switched")) * 3000,
            goal: 50,
            unit: " ms",
          },
          { what: "memory of the updater", found: memory, goal: 150, unit: " MiB" },
        ],
      };
    } finally {
      await hub.stop();
    }
  });
}

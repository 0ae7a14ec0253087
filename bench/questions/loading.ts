import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  type Measured,
  median,
  ratio,
  type Sample,
  sideBySide,
  timeProcess,
  watchMemory,
} from "../harness.ts";
import { largeTree, measureTree } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, type RunningHub, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

function note(measured: Measured, name: string, of: (values: number[]) => number): number {
  return of(measured.samples.map((sample) => sample.notes?.[name] ?? Number.NaN));
}

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const source = largeTree();
    const { files, bytes } = measureTree(source);
    const repository = join(directory, "git");
    const data = join(directory, "hub");
    let hub: RunningHub | null = null;
    const measured = await sideBySide(
      [
        {
          name: "git add",
          prepare: () => {
            rmSync(repository, { recursive: true, force: true });
            mkdirSync(repository);
            execFileSync("git", ["init", "--quiet"], { cwd: repository });
            execFileSync("sync");
          },
          run: async (): Promise<Sample> => {
            const sample = await timeProcess("bash", [
              "-c",
              `git --git-dir=${repository}/.git --work-tree=${source} add --all . && sync -f ${repository}`,
            ]);
            const stored = Number(
              execFileSync(
                "bash",
                [
                  "-c",
                  `find ${repository}/.git/objects -type f -printf '%s\\n' | awk '{s+=$1} END {print s}'`,
                ],
                { encoding: "utf8" },
              ),
            );
            return { ...sample, notes: { stored } };
          },
        },
        {
          name: "lockstep load",
          prepare: async () => {
            rmSync(data, { recursive: true, force: true });
            hub = await startHub(data);
            execFileSync("sync");
          },
          run: async (): Promise<Sample> => {
            if (hub === null) throw new Error("no hub");
            const memory = watchMemory(hub.pid);
            const sample = await timeProcess(
              ...lockstep(
                "load",
                source,
                "--hub",
                hub.url,
                "--module",
                "LARGE",
                "--version",
                "1",
                "--assign",
                "**=Server",
                "--yes",
                "--json",
              ),
            );
            const hubPeak = memory.stop();
            const status = JSON.parse(
              execFileSync(...lockstep("hub", "status", "--hub", hub.url, "--json"), { encoding: "utf8" }),
            ) as { storedBytes: number };
            await hub.stop();
            return { ...sample, notes: { stored: status.storedBytes, hubPeak } };
          },
        },
      ],
      { rounds: 3, warmUp: false },
    );
    const [git, load] = measured;
    if (git === undefined || load === undefined) throw new Error("nothing was measured");
    return {
      title: "Loading a release",
      text: `${files} files, ${Math.round(bytes / 1e6)} MB, into an empty repository, until the software revision has moved.`,
      measured,
      findings: [
        { what: "time against git add (P7)", found: ratio(load, git), goal: 1, unit: " times" },
        {
          what: "stored bytes against git's objects (P7)",
          found: note(load, "stored", median) / note(git, "stored", median),
          goal: 1.1,
          unit: " times",
        },
        {
          what: "memory of the hub's largest process",
          found: note(load, "hubPeak", (values) => Math.max(...values)) / 2 ** 20,
          goal: 400,
          unit: " MiB",
        },
      ],
    };
  });
}

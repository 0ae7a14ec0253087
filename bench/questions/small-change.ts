import { appendFileSync, cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ratio, type Sample, sideBySide, timeProcess } from "../harness.ts";
import { filesBelow, publishedPackage, smallTree } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, type RunningHub, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

/** A tree whose every round changes the same number of files, with an installation that follows. */
async function prepareTree(
  directory: string,
  name: string,
  source: string,
): Promise<{ hub: RunningHub; change(round: number): Promise<void>; update(): Promise<Sample> }> {
  const hub = await startHub(join(directory, `${name}-hub`));
  const tree = join(directory, `${name}-tree`);
  const installation = join(directory, `${name}-installation`);
  cpSync(source, tree, { recursive: true });
  const files = filesBelow(tree);
  const load = (version: string) =>
    timeProcess(
      ...lockstep(
        "load",
        tree,
        "--hub",
        hub.url,
        "--module",
        "ICONS",
        "--version",
        version,
        "--assign",
        "**=Client",
        "--yes",
      ),
    );
  await load("1.0.0");
  rmSync(installation, { recursive: true, force: true });
  await timeProcess(...lockstep("install", installation, "--hub", hub.url, "--role", "Client"));
  return {
    hub,
    async change(round) {
      for (let i = 0; i < 4; i++)
        appendFileSync(
          join(tree, files[Math.floor((i + 0.5) * (files.length / 4))] ?? ""),
          `\n// ${round}\n`,
        );
      await load(`1.0.${round + 2}`);
    },
    update: () => timeProcess(...lockstep("update", installation, "--json")),
  };
}

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const small = await prepareTree(directory, "small", smallTree("@mui/icons-material@9.4.0", 400));
    const large = await prepareTree(directory, "large", publishedPackage("@mui/icons-material@9.4.0"));
    try {
      const measured = await sideBySide(
        [
          {
            name: "4 changed of 400 files",
            prepare: (round) => small.change(round),
            run: () => small.update(),
          },
          {
            name: "4 changed of 43,010 files",
            prepare: (round) => large.change(round),
            run: () => large.update(),
          },
        ],
        { rounds: 7, warmUp: true },
      );
      const [few, many] = measured;
      if (few === undefined || many === undefined) throw new Error("nothing was measured");
      return {
        title: "Four changed files",
        text: "The whole `lockstep update`, from the question to the durable end.",
        measured,
        findings: [
          { what: "43,010 files against 400 (P8)", found: ratio(many, few), goal: 3, unit: " times" },
          {
            what: "memory of the updater",
            found: Math.max(...many.samples.map((sample) => sample.peakBytes ?? 0)) / 2 ** 20,
            goal: 150,
            unit: " MiB",
          },
        ],
      };
    } finally {
      await small.hub.stop();
      await large.hub.stop();
    }
  });
}

import { availableParallelism } from "node:os";
import { join } from "node:path";
import { ratio, sideBySide, timeProcess } from "../harness.ts";
import { largeTree, measureTree } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const hub = await startHub(join(directory, "hub"));
    const installation = join(directory, "installation");
    const { files, bytes } = measureTree(largeTree());
    try {
      await timeProcess(
        ...lockstep(
          "load",
          largeTree(),
          "--hub",
          hub.url,
          "--module",
          "LARGE",
          "--version",
          "1",
          "--assign",
          "**=Server",
          "--yes",
        ),
      );
      await timeProcess(...lockstep("install", installation, "--hub", hub.url, "--role", "Server"));
    } finally {
      await hub.stop();
    }
    const cores = availableParallelism();
    const digest = `find . -path ./.lockstep -prune -o -type f -print0 | xargs -0 -P ${cores} -n 400 openssl dgst -sha256 >/dev/null`;
    const measured = await sideBySide(
      [
        {
          name: `openssl dgst -sha256, ${cores} processes`,
          run: () => timeProcess("bash", ["-c", digest], { cwd: installation }),
        },
        { name: "lockstep verify", run: () => timeProcess(...lockstep("verify", installation)) },
        {
          name: "find, size, time and inode of each file",
          run: () =>
            timeProcess("bash", ["-c", "find . -type f -printf '%s %T@ %i %p\\n' >/dev/null"], {
              cwd: installation,
            }),
        },
        {
          name: "lockstep verify --quick",
          run: () => timeProcess(...lockstep("verify", installation, "--quick")),
        },
      ],
      { rounds: 5, warmUp: true },
    );
    const [openssl, full, find, quick] = measured;
    if (openssl === undefined || full === undefined || find === undefined || quick === undefined)
      throw new Error("nothing was measured");
    return {
      title: "Full verification",
      text: `${files} files, ${Math.round(bytes / 1e6)} MB, warm.`,
      measured,
      findings: [
        {
          what: "full verification against openssl on all cores (P5)",
          found: ratio(full, openssl),
          goal: 1,
          unit: " times",
        },
        {
          what: "nothing changed since, against find (P5)",
          found: ratio(quick, find),
          goal: 1.5,
          unit: " times",
        },
      ],
    };
  });
}

import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { ratio, sideBySide, timeProcess } from "../harness.ts";
import { publishedPackage } from "../inputs.ts";
import { inTemporaryDirectory, lockstep, startHub } from "../lockstep.ts";
import type { Report } from "../report.ts";

/** Counts what travels between an updater and its hub, each way, beneath HTTP. */
async function countingProxy(
  hub: URL,
): Promise<{ url: string; count(): { up: number; down: number }; stop(): void }> {
  let up = 0;
  let down = 0;
  const server = createServer((client) => {
    const upstream = connect(Number(hub.port), hub.hostname);
    client.on("data", (chunk) => {
      up += chunk.length;
    });
    upstream.on("data", (chunk) => {
      down += chunk.length;
    });
    client.pipe(upstream).pipe(client);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    count: () => ({ up, down }),
    stop: () => server.close(),
  };
}

/** What any Node program must pay to ask the same question once. */
const BARE = `import http from "node:http";
http.get(process.argv[2] + "/v1/revision", { headers: { "if-none-match": process.argv[3] } }, (answer) => {
  answer.resume();
  answer.on("end", () => process.exit(answer.statusCode === 304 ? 0 : 1));
});
`;

export function run(): Promise<Report> {
  return inTemporaryDirectory(async (directory) => {
    const hub = await startHub(join(directory, "hub"));
    try {
      const source = publishedPackage("next@16.4.5");
      await timeProcess(
        ...lockstep(
          "load",
          source,
          "--hub",
          hub.url,
          "--module",
          "NEXT",
          "--version",
          "16.4.5",
          "--assign",
          "**=Server",
          "--yes",
        ),
      );
      const installation = join(directory, "installation");
      await timeProcess(...lockstep("install", installation, "--hub", hub.url, "--role", "Server"));
      const bare = join(directory, "bare.mjs");
      writeFileSync(bare, BARE);
      const proxy = await countingProxy(new URL(hub.url));
      await timeProcess(...lockstep("check", installation, "--hub", proxy.url));
      const { up, down } = proxy.count();
      proxy.stop();
      const measured = await sideBySide(
        [
          {
            name: "a bare Node process that asks once",
            run: () => timeProcess(process.execPath, [bare, hub.url, '"1"']),
          },
          { name: "lockstep check", run: () => timeProcess(...lockstep("check", installation)) },
        ],
        { rounds: 15, warmUp: true },
      );
      const [theirs, ours] = measured;
      if (theirs === undefined || ours === undefined) throw new Error("nothing was measured");
      return {
        title: "Nothing to do",
        text: "An installation of 8,710 files that is in step asks its hub: the whole process, and what travels.",
        measured,
        findings: [
          {
            what: "time against a bare Node process (P4)",
            found: ratio(ours, theirs),
            goal: 1.3,
            unit: " times",
          },
          { what: "bytes to the hub (P4)", found: up, goal: 600, unit: " B" },
          { what: "bytes from the hub (P4)", found: down, goal: 600, unit: " B" },
        ],
      };
    } finally {
      await hub.stop();
    }
  });
}

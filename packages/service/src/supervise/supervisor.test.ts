import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "@lockstep/platform";
import { runService } from "./supervisor.ts";

test("told to end while its engine is only beginning, a service ends well", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-supervisor-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const configFile = join(directory, "JobService.toml");
  await writeFile(
    configFile,
    `[JobProvider]
Hub = "http://127.0.0.1:1"
[[JobServiceDestination]]
Queue = "A"
[FileLogWriter]
OutPutFile = "log"
`,
  );
  const begun = join(directory, "begun");
  const stop = new AbortController();
  const ended = runService({
    configFile,
    environment: process.env,
    signal: stop.signal,
    say: () => {},
    // An engine that has not come as far as to listen to signals.
    program: ["/bin/sh", "-c", `: > '${begun}'; exec sleep 600`],
  });
  while (!existsSync(begun)) await systemClock.sleep(5);
  stop.abort();
  assert.equal(await ended, 0);
});

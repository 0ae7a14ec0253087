import assert from "node:assert/strict";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ServiceConfig } from "./types.ts";
import { watchServiceConfig } from "./watch.ts";

const text = (more: string, severity = "Warning") => `[JobProvider]
Hub = "http://127.0.0.1:8700"
[[JobServiceDestination]]
Queue = "A"
${more}
[FileLogWriter]
OutPutFile = "log"
LogSeverity = "${severity}"
`;

async function watchText(initial: string) {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-watch-"));
  const file = join(directory, "JobService.toml");
  await writeFile(file, initial);
  const heard: { config?: ServiceConfig; waiting?: readonly string[]; refused?: readonly string[] }[] = [];
  let wake = Promise.withResolvers<void>();
  const hear = (word: (typeof heard)[number]) => {
    heard.push(word);
    wake.resolve();
    wake = Promise.withResolvers();
  };
  const watch = await watchServiceConfig({
    file,
    environment: {},
    intervalMs: 5,
    onChange: (config, waiting) => hear({ config, waiting }),
    onRefused: (refused) => hear({ refused }),
  });
  return {
    watch,
    write: async (changed: string) => {
      const next = wake.promise;
      // At once: looked at every few milliseconds, a file that is only begun would be read as it is.
      await writeFile(`${file}.new`, changed);
      await rename(`${file}.new`, file);
      await next;
      return heard.at(-1);
    },
    remove: async () => {
      const next = wake.promise;
      await rm(file);
      await next;
      return heard.at(-1);
    },
    [Symbol.asyncDispose]: async () => {
      await watch.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

test("what counts at once is taken over, what needs a restart waits and is named", async () => {
  await using world = await watchText(text("InternalSlots = 3"));
  const word = await world.write(
    `${text("InternalSlots = 7", "Info")}[HTTPStatus]\nPort = 5\n[Service]\nDrainSeconds = 999\n[[JobServiceDestination]]\nQueue = "B"\n`,
  );
  assert.equal(word?.config?.destinations.length, 1);
  assert.equal(word?.config?.destinations[0]?.internalSlots, 7);
  assert.equal(word?.config?.log.severity, "Info");
  assert.equal(word?.config?.status.port, 1880);
  assert.equal(word?.config?.service.drainMs, 60_000);
  assert.deepEqual(word?.waiting, [
    "JobServiceDestination B (new)",
    "Service.DrainSeconds",
    "HTTPStatus.Port",
  ]);
  assert.equal(world.watch.config(), word?.config);
  assert.deepEqual((await world.write(text("InternalSlots = 3")))?.waiting, []);
});

test("a file with faults is not taken over, nor one that is gone; the former configuration stays in force", async () => {
  await using world = await watchText(text(""));
  const before = world.watch.config();
  const word = await world.write(text("InternalSlots = -1"));
  assert.deepEqual(word?.refused, [
    "JobService.toml:5:1: JobServiceDestination[1].InternalSlots: is -1, must be from 0 to 1000",
  ]);
  assert.equal(world.watch.config(), before);
  assert.deepEqual(world.watch.state().refused, word?.refused);
  assert.match((await world.remove())?.refused?.join() ?? "", /cannot be read/);
  assert.deepEqual((await world.write(text("InternalSlots = 1")))?.waiting, []);
  assert.deepEqual(world.watch.state().refused, []);
});

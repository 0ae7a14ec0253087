import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { findUpdater } from "../../packages/hub/src/setup/updater-source.ts";
import { bundleInParts } from "../../scripts/bundle.mjs";
import { lockstep } from "../cli/lockstep.ts";
import { load, release } from "../hub/support/release.ts";
import { startTestHub } from "../hub/support/test-hub.ts";
import { usePostgres } from "../support/postgres.ts";
import { configure, runService, servers, temporaryDirectory, until } from "./service-world.ts";

const server = usePostgres();
const root = join(import.meta.dirname, "../..");

test("a service that is part of its own installation becomes the new version of itself, as the same process", async (t) => {
  const hub = await startTestHub(t, server, { updater: findUpdater("0.1.0") });
  const parts = await bundleInParts("packages/cli/src/main.ts", "lockstep.mjs");
  const program = Object.fromEntries(
    parts.map(({ fileName, code }: { fileName: string; code: string }) => [`program/${fileName}`, code]),
  );
  const bin = readFileSync(join(root, "packages/cli/bin/lockstep.mjs"), "utf8");
  const publish = async (version: string) => {
    const files = { ...program, "program/bin/lockstep.mjs": `${bin}\n// ${version}\n`, "app.txt": version };
    await load(hub, release(files, { version }));
    await hub.settled();
  };
  await publish("1");
  const directory = join(temporaryDirectory(t), "app");
  const token = join(temporaryDirectory(t), "token");
  writeFileSync(token, hub.token, { mode: 0o600 });
  const connection = ["--hub", hub.url, "--token-file", token, "--quiet"];
  const end = await lockstep(["install", directory, "--role", "Server", ...connection]);
  assert.equal(end.status, 0, end.stderr);
  const file = configure(hub, directory, { queues: ["\\A"], service: "DrainSeconds = 5" });
  // As below a cluster: the word tells the daemon that standing still is no failure (behaviour 75).
  const word = join(temporaryDirectory(t), "word");
  const keeper = join(temporaryDirectory(t), "keeper.mjs");
  writeFileSync(keeper, KEEPER);
  const named = { LOCKSTEP_SERVICE_WORD: word, NODE_OPTIONS: `--import=${keeper}` };
  const installed = join(directory, "program/bin/lockstep.mjs");
  const service = await runService(t, directory, file, named, installed);
  const { pid = 0 } = service.process;
  const environment = () => readFileSync(`/proc/${pid}/environ`, "utf8");
  const untilServing = (revision: number) =>
    until(async () =>
      (await servers(hub)).some((each) => each.state === "serving" && each.revision === revision),
    );
  await untilServing(1);
  assert.ok(!environment().includes("LOCKSTEP_SERVICE_ANNOUNCED"));
  await publish("2");
  await untilServing(2);
  assert.equal(readFileSync(join(directory, "app.txt"), "utf8"), "2");
  assert.ok(
    environment().includes("LOCKSTEP_SERVICE_ANNOUNCED"),
    "the supervisor is still the former version",
  );
  await until(() => readWord(word) === "ready");
  assert.equal(await service.stop(), 0, service.stderr());
  const words = readWord(`${word}.all`)
    .split("\n")
    .filter((said, at, all) => said !== all[at - 1]);
  assert.deepEqual(words.slice(words.indexOf("ready"), words.lastIndexOf("ready") + 1), [
    ...["ready", "updating", "starting", "ready"],
  ]);
  assert.equal(readWord(word), "stopping");
});

/** Keeps every word that the service says, in turn: whoever looks from time to time misses those that stand for a moment. */
const KEEPER = `
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
const { renameSync } = fs;
fs.renameSync = (from, to) => {
  if (to === process.env.LOCKSTEP_SERVICE_WORD) fs.appendFileSync(to + ".all", fs.readFileSync(from));
  renameSync(from, to);
};
syncBuiltinESMExports();
`;

const readWord = (file: string): string => {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
};

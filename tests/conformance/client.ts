import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { HubClient, openDocument } from "@lockstep/client";
import { realDisk, systemClock } from "@lockstep/platform";
import { MetadataStore, type Mirror, MirrorSource, TrustClient } from "@lockstep/trust";

/**
 * The client under test of the public TUF conformance suite: our verifier, our store and our fetcher behind the three
 * commands that the suite calls. How the suite is run stands in docs/internals/trust.md.
 *
 * `--without-checks` (set by the environment, since the suite passes its own arguments) is the control: the same client
 * with all verification left out must fail the suite.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "metadata-dir": { type: "string" },
    "metadata-url": { type: "string" },
    "target-name": { type: "string", multiple: true },
    "target-dir": { type: "string" },
    "target-base-url": { type: "string" },
  },
});
const UNCHECKED = process.env.LOCKSTEP_CONFORMANCE_CONTROL === "without-checks";
const TARGET_BYTES_MAX = 64 * 1024 * 1024;

function demand(name: Exclude<keyof typeof values, "target-name">): string {
  const value = values[name];
  if (value === undefined) throw new RangeError(`--${name} is missing`);
  return value;
}

function mirror(client: HubClient): Mirror {
  return {
    name: client.url,
    open: async (document, from, signal) =>
      await openDocument(client.connection, `/${document}`, from, signal),
  };
}

function source(client: HubClient): MirrorSource {
  return new MirrorSource([mirror(client)], systemClock);
}

async function main(): Promise<void> {
  const directory = demand("metadata-dir");
  const store = new MetadataStore(realDisk, directory);
  const [command, rootFile] = positionals;
  if (command === "init") {
    // The suite allows an unusable root here and asks for the refusal at the refresh.
    if (rootFile === undefined) throw new RangeError("init needs a root file");
    return await store.write("root", readFileSync(rootFile));
  }
  const hub = new HubClient({ url: demand("metadata-url") });
  try {
    if (UNCHECKED) return await trustEverything(store, hub);
    const trust = await TrustClient.open(store, systemClock);
    await trust.refresh(source(hub));
    if (command === "download")
      for (const name of values["target-name"] ?? []) await download(trust, hub, name);
    else if (command !== "refresh") throw new RangeError(`unknown command ${command}`);
  } finally {
    await hub.close();
  }
}

async function download(trust: TrustClient, hub: HubClient, name: string): Promise<void> {
  const target = await trust.target(name, source(hub));
  if (target === null) throw new RangeError(`nobody vouches for ${name}`);
  const directory = demand("target-dir");
  mkdirSync(directory, { recursive: true });
  const place = join(directory, encodeURIComponent(name));
  const fits = (bytes: Uint8Array) =>
    bytes.length === target.length &&
    Object.keys(target.hashes).length > 0 &&
    Object.entries(target.hashes).every(
      ([algorithm, expected]) => createHash(algorithm).update(bytes).digest("hex") === expected,
    );
  try {
    if (fits(readFileSync(place))) return;
  } catch {
    // Not there yet.
  }
  const files = new HubClient({ url: demand("target-base-url") });
  try {
    const [hash] = Object.values(target.hashes);
    const parts = name.split("/");
    const file = trust.root.consistentSnapshot ? `${hash}.${parts.pop()}` : parts.pop();
    const came = await source(files).fetch(
      [...parts, file].join("/"),
      Math.min(target.length, TARGET_BYTES_MAX),
      async (bytes) => {
        if (!fits(bytes)) throw new RangeError(`${name} is not what was promised`);
        writeFileSync(`${place}.new`, bytes);
        renameSync(`${place}.new`, place);
      },
    );
    if (!came) throw new RangeError(`${name} is not there`);
  } finally {
    await files.close();
  }
}

/** The control: fetches what there is and believes it. */
async function trustEverything(store: MetadataStore, hub: HubClient): Promise<void> {
  const get = async (document: string): Promise<{ signed: Record<string, unknown> } | null> => {
    let found: Uint8Array | null = null;
    await source(hub).fetch(document, TARGET_BYTES_MAX, async (bytes) => {
      found = bytes;
    });
    if (found === null) return null;
    const role = document.replace(/^\d+\./, "").replace(/\.json$/, "");
    await store.write(role, found);
    return JSON.parse(Buffer.from(found).toString("utf8"));
  };
  const version = (document: { signed: Record<string, unknown> } | null, role: string) => {
    const meta = document?.signed.meta as Record<string, { version: number }> | undefined;
    return meta?.[`${role}.json`]?.version ?? 1;
  };
  for (let number = 2; (await get(`${number}.root.json`)) !== null; number++);
  const timestamp = await get("timestamp.json");
  const snapshot = await get(`${version(timestamp, "snapshot")}.snapshot.json`);
  const targets = await get(`${version(snapshot, "targets")}.targets.json`);
  if (positionals[0] !== "download") return;
  const entries = targets?.signed.targets as Record<string, { hashes: Record<string, string> }>;
  const files = new HubClient({ url: demand("target-base-url") });
  for (const name of values["target-name"] ?? []) {
    const hash = Object.values(entries[name]?.hashes ?? {})[0];
    const parts = name.split("/");
    const file = `${hash}.${parts.pop()}`;
    await source(files).fetch([...parts, file].join("/"), TARGET_BYTES_MAX, async (bytes) => {
      writeFileSync(join(demand("target-dir"), encodeURIComponent(name)), bytes);
    });
  }
  await files.close();
}

try {
  await main();
} catch (error) {
  console.error(
    error instanceof Error ? `${error.name} ${"code" in error ? error.code : ""}: ${error.message}` : error,
  );
  if (error instanceof Error && "found" in error) console.error(`found: ${String(error.found)}`);
  process.exitCode = 1;
}

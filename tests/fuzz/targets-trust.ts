import { createHash } from "node:crypto";
import { checkPath, type FileEntry, findTwins, joinManifests } from "@lockstep/core";
import {
  applyDelta,
  diffEntries,
  formatDelta,
  formatManifest,
  parseDelta,
  parseEntries,
  parseManifest,
} from "@lockstep/protocol";
import { MetadataStore, readStrictJson } from "@lockstep/trust";
import { pinned, refresh, TRUST } from "../trust/client-world.ts";
import { SmallRepository } from "../trust/small-repository.ts";
import { type FuzzTarget, Violation } from "./fuzz.ts";
import { mutate } from "./mutate.ts";

const digest = (text: string | Uint8Array) => createHash("sha256").update(text).digest("hex");
const signedOf = (bytes: Uint8Array) =>
  JSON.stringify((JSON.parse(Buffer.from(bytes).toString()) as { signed: unknown }).signed);

/** Whatever is read means what every other reader would say. */
export const strictJsonTarget: FuzzTarget<Buffer> = {
  name: "strict-json",
  share: 165,
  prepare: async () => {
    const hub = await SmallRepository.make();
    const samples = [...hub.documents.values()];
    return {
      draw: (prng) => mutate(prng.pick(samples) ?? new Uint8Array(), prng, samples),
      judge: (bytes) => {
        const read = readStrictJson(bytes);
        if ("problem" in read) return "no strict JSON";
        if (JSON.stringify(read.value) !== JSON.stringify(JSON.parse(bytes.toString())))
          throw new Violation("two readers see two documents");
        return null;
      },
    };
  },
};

/** A whole refresh with one document mutated: whatever is trusted afterwards says what was signed. */
export const metadataTarget: FuzzTarget<{ readonly name: string; readonly bytes: Buffer }> = {
  name: "metadata",
  share: 25,
  prepare: async () => {
    const hub = await SmallRepository.make();
    const begin = await pinned(hub);
    await refresh(begin, hub.mirror());
    await hub.publishRoot();
    await hub.publishRevision(2);
    const names = ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"] as const;
    const good = new Map(
      names.map((name) => [name.replace(/^2\.|\.json$/g, ""), signedOf(hub.document(name))]),
    );
    const samples = [...hub.documents.values()];
    return {
      draw: (prng) => {
        const name = prng.pick(names);
        return { name, bytes: mutate(hub.document(name), prng, samples) };
      },
      judge: async ({ name, bytes }) => {
        const bad = hub.clone();
        bad.documents.set(name, bytes);
        const place = { disk: begin.disk.clone(), clock: begin.clock };
        await refresh(place, bad.mirror());
        const store = new MetadataStore(place.disk, TRUST);
        for (const [role, signed] of good)
          if (signedOf(store.read(role) ?? Buffer.from("{}")) !== signed)
            throw new Violation(`another ${role} is trusted`);
        return null;
      },
    };
  },
};

function entriesOf(paths: readonly string[], version: string): FileEntry[] {
  return paths
    .map((path) => ({
      path,
      size: path.length,
      sha256: digest(path + version),
      mode: 0o644,
      backup: path.length % 3 === 0,
    }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}
const PATHS = [
  "bin/program",
  "bin/tool.exe",
  "data/é.txt",
  'doc/"quoted".md',
  "lib/a-1.2.jar",
  "lib/b",
  "readme",
  "z/y/x/w",
];
const FORMER = entriesOf(PATHS, "1");
const NEXT = [
  ...entriesOf(PATHS.slice(0, 5), "2"),
  ...entriesOf(PATHS.slice(6), "1"),
  ...entriesOf(["zz/new"], "2"),
];
const TARGET = { kind: "role", name: "Server/App" } as const;

/** What can be installed of a changed list obeys the grammar, and both ways to read it agree. */
export const manifestTarget: FuzzTarget<string> = {
  name: "manifest",
  share: 150,
  prepare: () => {
    const samples = [FORMER, NEXT].map((entries) => Buffer.from(formatManifest({ target: TARGET, entries })));
    const good = new Set(samples.map(digest));
    return {
      draw: (prng) => mutate(prng.pick(samples) ?? new Uint8Array(), prng, samples).toString(),
      judge: (text) => {
        const { entries, target } = parseManifest(text);
        const slow = parseEntries(
          text
            .slice(text.indexOf("\n") + 1, -1)
            .split("\n")
            .filter((line) => line !== ""),
        );
        if (JSON.stringify(entries) !== JSON.stringify(slow))
          throw new Violation("two readers see two lists");
        const { faults } = joinManifests([{ target, entries }]);
        if (faults.length > 0) return "its paths";
        if (
          entries.some(({ path }) => checkPath(path) !== null) ||
          findTwins(entries.map(({ path }) => path)).length > 0
        )
          throw new Violation("a hostile path may be installed");
        if (!good.has(digest(text))) return "its digest";
        return null;
      },
    };
  },
};

/** Whatever a changed difference leads to, it is the promised list or none. */
export const manifestDeltaTarget: FuzzTarget<string> = {
  name: "manifest-delta",
  share: 80,
  prepare: () => {
    const sample = Buffer.from(formatDelta(diffEntries(FORMER, NEXT)));
    const wanted = formatManifest({ target: TARGET, entries: NEXT });
    return {
      draw: (prng) => mutate(sample, prng).toString(),
      judge: (text) => {
        const made = formatManifest({ target: TARGET, entries: applyDelta(FORMER, parseDelta(text)) });
        if (digest(made) !== digest(wanted)) return "its digest";
        if (made !== wanted) throw new Violation("another list has the same digest");
        return null;
      },
    };
  },
};

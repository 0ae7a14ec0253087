import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Disk, realDisk, silentLogger, systemClock } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { beginStaging, commit } from "../../packages/updater/src/apply/index.ts";

/**
 * B2: a link, then a file through it. A release has no links, so whoever wants one plants it in the installation; the
 * release then puts a file below it. C1: the same, planted when everything has been looked at. The control is the same code
 * on a disk that shows a link as what it leads to.
 */
const VICTIM = "untouched";

/** How deep the link stands, how deep the file below it, and what the link says. */
const DEPTHS = [0, 1, 2, 5] as const;
const BELOW = ["file", "victim", "sub/file", "sub/deep/file"] as const;
const SAYS = ["absolute", "relative", "link to a link", "through the parent"] as const;

interface Planted {
  readonly name: string;
  /** Where the link stands in the installation. */
  readonly link: string;
  /** Path of the file that the release puts. */
  readonly path: string;
  readonly says: (typeof SAYS)[number];
}

const ATTACKS: readonly Planted[] = DEPTHS.flatMap((depth) =>
  BELOW.flatMap((below) =>
    SAYS.map((says) => {
      const link = [...Array.from({ length: depth }, (_, n) => `d${n}`), "lib"].join("/");
      return { name: `${says}, ${link}, ${below}`, link, path: `${link}/${below}`, says };
    }),
  ),
);

function plant(base: string, { link, says }: Planted): { root: string; outside: string } {
  const [root, outside] = [join(base, "installation"), join(base, "outside")];
  mkdirSync(join(outside, "sub/deep"), { recursive: true });
  writeFileSync(join(outside, "victim"), VICTIM);
  const place = join(root, link);
  mkdirSync(dirname(place), { recursive: true });
  const up = "../".repeat(link.split("/").length);
  if (says === "absolute") symlinkSync(outside, place);
  else if (says === "relative") symlinkSync(`${up}outside`, place);
  else if (says === "through the parent") symlinkSync(`${up}outside/sub/..`, place);
  else {
    symlinkSync(outside, join(base, "way"));
    symlinkSync(join(base, "way"), place);
  }
  return { root, outside };
}

/** Everything below a directory, with the contents. */
const treeOf = (directory: string) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" })
    .sort()
    .map((path) => [
      path,
      statSync(join(directory, path)).isFile() && readFileSync(join(directory, path), "utf8"),
    ]);

/** One attack with one disk: whether anything outside changed, and what was said. */
async function attack(t: TestContext, planted: Planted, disk: Disk) {
  const base = mkdtempSync(join(tmpdir(), "lockstep-links-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const { root, outside } = plant(base, planted);
  const before = treeOf(outside);
  const context = { disk, root, clock: systemClock, log: silentLogger };
  const said = await (async () => {
    const staging = await beginStaging(context);
    disk.writeFile(staging.pathFor(0), Buffer.from("planted"), 0o600);
    const { kind } = await commit(context, {
      staging,
      operations: [{ n: 0, kind: "put", path: planted.path, mode: 0o644 }],
      state: Buffer.from("state"),
      from: 1,
      to: 2,
      startedAt: 0,
    });
    return kind;
  })().catch((error: unknown) => {
    if (!isLockstepError(error)) throw error;
    return error.code;
  });
  const after = treeOf(outside);
  return { said, changed: JSON.stringify(before) !== JSON.stringify(after), base };
}

/** The defence taken out: what a look at a path says of a link is what stands behind it. */
const following: Disk = {
  ...realDisk,
  lstat(path) {
    const stat = realDisk.lstat(path);
    if (stat?.kind !== "link" || !existsSync(path)) return stat;
    return { ...stat, kind: statSync(path).isDirectory() ? "directory" : "file" };
  },
  readDirectory: (path) => readdirSync(path),
  syncDirectories: (paths) => realDisk.syncDirectories(paths.map((path) => realpathSync(path))),
};

test("B2: no file of a release gets out of the installation through a link that stands there", async (t) => {
  assert.ok(ATTACKS.length >= 50, `${ATTACKS.length} attacks`);
  for (const planted of ATTACKS) {
    const { said, changed } = await attack(t, planted, realDisk);
    assert.deepEqual({ said, changed }, { said: "INSTALLATION_CONFLICT", changed: false }, planted.name);
  }
});

test("B2: the control: where links are not told from directories, each of them gets out", async (t) => {
  for (const planted of ATTACKS) {
    const { said, changed } = await attack(t, planted, following);
    assert.deepEqual({ said, changed }, { said: "applied", changed: true }, planted.name);
  }
});

/** A directory that is exchanged for a link at the last moment at which an update still looks. */
async function exchanged(
  t: TestContext,
  disk: Disk,
  link: string,
): Promise<{ said: string; changed: boolean }> {
  const base = mkdtempSync(join(tmpdir(), "lockstep-links-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const [root, outside] = [join(base, "installation"), join(base, "outside")];
  for (const directory of [join(root, link), outside]) mkdirSync(directory, { recursive: true });
  writeFileSync(join(root, link, "victim"), "1");
  writeFileSync(join(outside, "victim"), VICTIM);
  const context = { disk, root, clock: systemClock, log: silentLogger };
  const staging = await beginStaging(context);
  disk.writeFile(staging.pathFor(0), Buffer.from("planted"), 0o600);
  const said = await commit(context, {
    staging,
    operations: [{ n: 0, kind: "put", path: `${link}/victim`, mode: 0o644 }],
    state: Buffer.from("state"),
    from: 1,
    to: 2,
    startedAt: 0,
    hooks: {
      stop: () => {
        renameSync(join(root, link), join(base, "away"));
        symlinkSync(outside, join(root, link));
      },
    },
  }).then(
    ({ kind }) => kind,
    (error: unknown) => {
      if (!isLockstepError(error)) throw error;
      return error.code;
    },
  );
  return { said, changed: readFileSync(join(outside, "victim"), "utf8") !== VICTIM };
}

test("C1: a directory that becomes a link between the look and the switch leads nothing out", async (t) => {
  for (const link of ["lib", "a/lib", "a/b/c/lib"]) {
    const held = await exchanged(t, realDisk, link);
    assert.deepEqual(held, { said: "INSTALLATION_CONFLICT", changed: false }, link);
    // The control: the same where links are not told from directories.
    assert.deepEqual(await exchanged(t, following, link), { said: "applied", changed: true }, link);
  }
});

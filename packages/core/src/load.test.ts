import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { changesRepository, planLoad } from "./load.ts";
import type { LoadKind, LoadOffer, OfferedFile, RepositoryState, StoredFile } from "./load-offer.ts";
import { checkPath, findTwins, foldPath } from "./path.ts";
import { EMPTY_LAYOUT, type Layout } from "./revision-layout.ts";
import { compareVersions } from "./version.ts";

const SHA = (digit: number) => String(digit).repeat(64);
const ROLE = "role:Server";

function offer(changes: Partial<LoadOffer> = {}): LoadOffer {
  return {
    module: { id: "APP", version: "2.0", name: null, requires: [] },
    kind: "version",
    declared: null,
    files: [],
    allowDowngrade: false,
    ...changes,
  };
}

function file(path: string, changes: Partial<OfferedFile> = {}): Required<OfferedFile> {
  return {
    path,
    size: 1,
    sha256: SHA(1),
    mode: 0o644,
    version: null,
    backup: false,
    targets: [ROLE],
    ...changes,
  };
}

function state(files: StoredFile[], changes: Partial<RepositoryState> = {}): RepositoryState {
  return {
    modules: new Map(
      [
        { id: "APP", version: "1.0", name: null, requires: [] },
        { id: "OTHER", version: "3.1", name: null, requires: [] },
        { id: "CCC", version: null, name: null, requires: [] },
      ].map((module) => [module.id, module]),
    ),
    files: new Map(files.map((each) => [each.path, each])),
    layout: { ...EMPTY_LAYOUT, roles: [{ path: "Server", description: "", selectable: true, module: null }] },
    ...changes,
  };
}

function stored(path: string, changes: Partial<StoredFile> = {}): StoredFile {
  return { ...file(path), targets: [ROLE], module: "APP", ...changes };
}

test("version text and backup stay where a load says nothing of them, and begin as none", () => {
  const present = state([stored("etc", { version: "1.4", backup: true })]);
  const { version: _, backup: __, ...silent } = file("etc", { sha256: SHA(2) });
  const put = (kind: LoadKind, path: string, changes: Partial<OfferedFile> = {}) =>
    planLoad(offer({ kind, files: [{ ...silent, path, ...changes }] }), present).puts[0]?.file;
  for (const kind of ["hotfix", "service-pack", "version"] as const)
    assert.deepEqual(
      [put(kind, "etc")?.version, put(kind, "etc")?.backup],
      ["1.4", true],
      `${kind} changes what nobody named`,
    );
  const fresh = put("service-pack", "new");
  assert.deepEqual([fresh?.version, fresh?.backup], [null, false]);
  const said = put("hotfix", "etc", { version: null, backup: false });
  assert.deepEqual([said?.version, said?.backup], [null, false]);
  const nothing = planLoad(offer({ kind: "hotfix", files: [{ ...silent, sha256: SHA(1) }] }), present);
  assert.deepEqual([nothing.puts.length, nothing.attributeChanges], [0, 0]);
});

test("each file is unknown, never loaded, changed or equal (behaviour 44)", () => {
  const plan = planLoad(
    offer({
      files: [
        file("new"),
        file("named"),
        file("other", { sha256: SHA(2) }),
        file("longer", { size: 9, sha256: SHA(3) }),
        file("same"),
      ],
    }),
    state([stored("named", { size: null, sha256: null }), stored("other"), stored("longer"), stored("same")]),
  );
  assert.deepEqual(plan.statuses, ["unknown", "never-loaded", "changed", "changed", "equal"]);
  assert.deepEqual(plan.counts, { added: 1, changed: 3, removed: 0, equal: 1 });
});

test("a load that changes nothing writes nothing (behaviour 8)", () => {
  const plan = planLoad(
    offer({ module: { id: "APP", version: "1.0", name: null, requires: [] }, files: [file("a")] }),
    state([stored("a")]),
  );
  assert.equal(changesRepository(plan), false);
  assert.equal(plan.moduleChange, null);
});

test("equal content with other attributes changes the file, and null targets keep those that it has", () => {
  const kept = planLoad(offer({ files: [file("a", { targets: null })] }), state([stored("a")]));
  assert.equal(changesRepository(kept), false);
  const moved = planLoad(
    offer({ files: [file("a", { mode: 0o755, targets: ["role:Client"] })] }),
    state([stored("a")]),
  );
  assert.equal(moved.attributeChanges, 1);
  assert.deepEqual(moved.puts[0]?.targets, ["role:Client"]);
  assert.equal(moved.puts[0]?.content, false);
});

test("a file without any target is told, for it would never be distributed (behaviour 18)", () => {
  const plan = planLoad(
    offer({ files: [file("a", { targets: [] }), file("b", { targets: null })] }),
    state([]),
  );
  assert.equal(plan.undistributed, 2);
});

test("a version removes what it lacks, of its own module only, and never the update archive", () => {
  const plan = planLoad(
    offer({ files: [file("a")] }),
    state([
      stored("a"),
      stored("old"),
      stored("theirs", { module: "OTHER" }),
      stored("custom", { module: "CCC" }),
      stored("Update.zip", { module: "APP", targets: [] }),
    ]),
  );
  assert.deepEqual(plan.removals, ["old"]);
});

test("everything that stands against a load is said at once", () => {
  const plan = planLoad(
    offer({
      kind: "hotfix",
      module: {
        id: "APP",
        version: "2",
        name: null,
        requires: [
          { module: "OTHER", min: "3.2.*", max: null },
          { module: "NONE", min: null, max: null },
        ],
      },
      files: [
        file("../up"),
        file("unknown"),
        file("theirs"),
        file("a"),
        file("a"),
        file("x", { targets: ["package:APP/None"] }),
        file("y", { targets: ["nonsense"] }),
        file("UPDATE.ZIP"),
      ],
    }),
    state([stored("theirs", { module: "OTHER" }), stored("a"), stored("x"), stored("y")]),
  );
  const told = plan.refusals.map(({ kind, where }) => `${kind} ${where}`);
  for (const expected of [
    "path ../up",
    "load ../up",
    "load unknown",
    "load theirs",
    "load a",
    "load package APP/None",
    "load y",
    "path UPDATE.ZIP",
  ])
    assert.ok(told.includes(expected), `${expected} in ${told.join(", ")}`);
  assert.equal(told.filter((text) => text === "requirement module APP").length, 2);
});

test("custom files go to CCC whatever the module is called, and no other kind may load there", () => {
  const custom = planLoad(offer({ kind: "custom", files: [file("mine")] }), state([]));
  assert.equal(custom.module, "CCC");
  assert.deepEqual(custom.refusals, []);
  assert.match(custom.notices.join(), /kept in the module CCC/);
  const version = planLoad(
    offer({ module: { id: "CCC", version: "1", name: null, requires: [] }, files: [file("mine")] }),
    state([]),
  );
  assert.deepEqual(
    version.refusals.map((refusal) => refusal.where),
    ["module CCC"],
  );
});

test("Lockstep's own module is loaded by its set-up alone", () => {
  const own = offer({
    module: { id: "LOCKSTEP", version: "1", name: null, requires: [] },
    files: [file("u")],
  });
  assert.equal(planLoad(own, state([])).refusals.length, 1);
  assert.equal(planLoad(own, state([]), { own: true }).refusals.length, 0);
});

test("a version lower than the one that is there is refused unless it is meant", () => {
  const lower = offer({
    module: { id: "APP", version: "0.9", name: null, requires: [] },
    files: [file("a")],
  });
  assert.deepEqual(
    planLoad(lower, state([])).refusals.map((refusal) => refusal.where),
    ["version 0.9"],
  );
  const meant = planLoad({ ...lower, allowDowngrade: true }, state([]));
  assert.deepEqual(meant.refusals, []);
  assert.equal(meant.moduleChange?.version, "0.9");
  assert.match(meant.notices.join(), /replaces the higher version 1\.0/);
});

test("a correction of an older state leaves the module's version where it is", () => {
  const plan = planLoad(
    offer({
      kind: "hotfix",
      module: { id: "APP", version: "0.9-hf1", name: null, requires: [] },
      files: [file("a", { sha256: SHA(2) })],
    }),
    state([stored("a")]),
  );
  assert.deepEqual(plan.refusals, []);
  assert.equal(plan.moduleChange, null);
});

test("another module that will not fit the new version is told, not refused", () => {
  const present = state([]);
  const modules = new Map(present.modules);
  modules.set("OTHER", {
    id: "OTHER",
    version: "3.1",
    name: null,
    requires: [{ module: "APP", min: "1.0", max: "1.*" }],
  });
  const plan = planLoad(offer({ files: [file("a")] }), { ...present, modules });
  assert.deepEqual(plan.refusals, []);
  assert.match(plan.notices.join(), /OTHER needs APP 1\.0 to 1\.\* and will not fit 2\.0/);
});

test("a role comes into being by an assignment, with its parents", () => {
  const plan = planLoad(offer({ files: [file("a", { targets: ["role:Server/Job/LDAP"] })] }), state([]));
  assert.deepEqual(
    plan.layout.targetPuts.map((put) => put.name),
    ["Server/Job", "Server/Job/LDAP"],
  );
});

const DECLARED: NonNullable<LoadOffer["declared"]> = {
  roles: [
    {
      path: "Client",
      description: "For people",
      selectable: true,
      packages: [{ package: "APP/Core", subdirectory: "bin" }],
    },
  ],
  packages: [
    { name: "APP/Core", description: "", selectable: true, requires: ["APP/Base"] },
    { name: "APP/Base", description: "", selectable: false, requires: [] },
  ],
};

test("declared roles and packages are written, and a later version takes back what it no longer declares", () => {
  const first = planLoad(
    offer({ declared: DECLARED, files: [file("a", { targets: ["package:APP/Core"] })] }),
    state([]),
  );
  assert.deepEqual(first.refusals, []);
  const layout: Layout = {
    roles: [
      { path: "Client", description: "For people", selectable: true, module: "APP" },
      { path: "Server", description: "", selectable: true, module: null },
    ],
    packages: [
      { name: "APP/Core", description: "", selectable: true, module: "APP" },
      { name: "APP/Base", description: "", selectable: false, module: "APP" },
    ],
    relations: [{ role: "Client", package: "APP/Core", subdirectory: "bin", module: "APP" }],
    requirements: [{ package: "APP/Core", requires: "APP/Base" }],
  };
  assert.equal(first.layout.targetPuts.length, 3);
  const present = state(
    [
      stored("a", { targets: ["package:APP/Core"] }),
      stored("theirs", { module: "OTHER", targets: ["package:APP/Base"] }),
    ],
    { layout },
  );
  const again = planLoad(
    offer({ declared: DECLARED, files: [file("a", { targets: ["package:APP/Core"] })] }),
    present,
  );
  assert.equal(changesRepository(again), false);
  const bare = planLoad(offer({ declared: { roles: [], packages: [] }, files: [file("a")] }), present);
  assert.deepEqual(bare.refusals, []);
  assert.deepEqual(bare.layout.relationRemovals, layout.relations);
  assert.deepEqual(
    bare.layout.targetRemovals.map((target) => target.name),
    ["Client", "APP/Core"],
  );
  assert.match(bare.notices.join(), /no longer declares the package APP\/Base; it stays/);
  const kept = planLoad(
    offer({
      kind: "service-pack",
      declared: { roles: [], packages: [] },
      files: [file("a", { targets: null })],
    }),
    present,
  );
  assert.equal(changesRepository(kept), false);
});

test("a declaration that refers to nothing, or to another's package, is refused", () => {
  const plan = planLoad(
    offer({
      files: [file("a")],
      declared: {
        roles: [
          {
            path: "Server",
            description: "",
            selectable: true,
            packages: [{ package: "NO/Where", subdirectory: "../up" }],
          },
        ],
        packages: [{ name: "OTHER/Mine", description: "", selectable: true, requires: ["NO/Thing"] }],
      },
    }),
    state([]),
  );
  assert.equal(plan.refusals.length, 4, JSON.stringify(plan.refusals));
});

test("two files that would land in one place through a subdirectory are refused, whoever brings them", () => {
  const layout: Layout = {
    roles: [{ path: "Client", description: "", selectable: true, module: "APP" }],
    packages: [{ name: "APP/Core", description: "", selectable: true, module: "APP" }],
    relations: [{ role: "Client", package: "APP/Core", subdirectory: "bin", module: "APP" }],
    requirements: [],
  };
  const present = state([stored("bin/a", { module: "OTHER", targets: ["role:Client"], sha256: SHA(2) })], {
    layout,
  });
  const plan = planLoad(offer({ files: [file("a", { targets: ["package:APP/Core"] })] }), present);
  assert.deepEqual(
    plan.refusals.map(({ kind, where }) => [kind, where]),
    [["path", "bin/a"]],
  );
  const same = planLoad(
    offer({ files: [file("a", { targets: ["package:APP/Core"], sha256: SHA(2) })] }),
    present,
  );
  assert.deepEqual(same.refusals, []);
});

test("what was broken before is no reason against a load that does not touch it", () => {
  const broken = state([stored("x", { module: "OTHER" }), stored("X", { module: "OTHER" })]);
  assert.deepEqual(planLoad(offer({ files: [file("a")] }), broken).refusals, []);
  assert.equal(planLoad(offer({ files: [file("x/below")] }), broken).refusals.length, 1);
});

const PATHS = ["a", "A", "b", "b/c", "dir/x", "dir/y", "../z", "nul", "update.zip"];
const targets = fc.subarray([ROLE, "role:Client"]);
const offered = fc.record(
  {
    path: fc.constantFrom(...PATHS),
    sha256: fc.constantFrom(SHA(1), SHA(2)),
    mode: fc.constantFrom(0o644, 0o755),
    version: fc.constantFrom(null, "1"),
    backup: fc.boolean(),
    targets: fc.option(targets),
  },
  { requiredKeys: ["path", "sha256", "mode", "targets"] },
);
const offers: fc.Arbitrary<LoadOffer> = fc
  .record({
    id: fc.constantFrom("APP", "OTHER", "CCC"),
    version: fc.constantFrom("0.9", "1.0", "2.0"),
    kind: fc.constantFrom<LoadKind>("version", "service-pack", "hotfix", "custom"),
    files: fc.uniqueArray(offered, { maxLength: 5, selector: (each) => each.path }),
    allowDowngrade: fc.boolean(),
  })
  .map(({ id, version, kind, files, allowDowngrade }) =>
    offer({
      module: { id, version, name: null, requires: [] },
      kind,
      allowDowngrade,
      files: files.map((each) => ({ ...each, size: each.sha256 === SHA(1) ? 1 : 2 })),
    }),
  );
const states: fc.Arbitrary<RepositoryState> = fc
  .uniqueArray(
    fc.record({
      path: fc.constantFrom("a", "A", "b", "b/c", "dir/x", "dir/y", "e"),
      module: fc.constantFrom("APP", "OTHER", "CCC"),
      sha256: fc.constantFrom(SHA(1), SHA(2), null),
      version: fc.constantFrom(null, "1", "2"),
      backup: fc.boolean(),
      targets,
    }),
    { selector: (each) => foldPath(each.path) },
  )
  .map((rows) =>
    state(
      rows.map((row) =>
        stored(row.path, { ...row, size: row.sha256 === null ? null : row.sha256 === SHA(1) ? 1 : 2 }),
      ),
    ),
  );

/** What the repository would hold, by the plainest reading of the four kinds; null where the load must be refused. */
function naive(wanted: LoadOffer, present: RepositoryState): Map<string, StoredFile> | null {
  const module = wanted.kind === "custom" ? "CCC" : wanted.module.id;
  const version = present.modules.get(module)?.version ?? null;
  if (module === "CCC" && wanted.kind !== "custom") return null;
  if (wanted.kind === "hotfix" && version === null) return null;
  if (wanted.kind === "version" && version !== null && !wanted.allowDowngrade)
    if (compareVersions(wanted.module.version, version) < 0) return null;
  const after = new Map(present.files);
  if (wanted.kind === "version")
    for (const each of present.files.values()) if (each.module === module) after.delete(each.path);
  for (const each of wanted.files) {
    const before = present.files.get(each.path);
    if (checkPath(each.path) !== null || each.path.toLowerCase() === "update.zip") return null;
    if (before !== undefined && before.sha256 !== null && before.module !== module) return null;
    if (before === undefined && wanted.kind === "hotfix") return null;
    after.set(each.path, {
      ...each,
      version: each.version === undefined ? (before?.version ?? null) : each.version,
      backup: each.backup ?? before?.backup ?? false,
      module,
      targets: [...(each.targets ?? before?.targets ?? [])].sort(),
    });
  }
  const clash = (paths: Iterable<string>) =>
    new Set(findTwins(paths).map((twin) => `${twin.path} ${twin.other}`));
  const before = clash(present.files.keys());
  return [...clash(after.keys())].some((twin) => !before.has(twin)) ? null : after;
}

test("carrying a plan out gives what the plainest reading of the kinds gives, and it refuses exactly what must be", () => {
  let refused = 0;
  let carried = 0;
  fc.assert(
    fc.property(offers, states, (wanted, present) => {
      const plan = planLoad(wanted, present);
      const expected = naive(wanted, present);
      assert.equal(plan.refusals.length === 0, expected !== null, JSON.stringify(plan.refusals));
      if (expected === null) {
        refused++;
        return;
      }
      carried++;
      const after = new Map(present.files);
      for (const path of plan.removals) after.delete(path);
      for (const put of plan.puts) {
        const before = present.files.get(put.file.path);
        assert.equal(put.isNew, before === undefined);
        after.set(put.file.path, {
          ...put.file,
          module: plan.module,
          targets: [...(put.targets ?? before?.targets ?? [])].sort(),
        });
      }
      const normal = (files: Map<string, StoredFile>) =>
        [...files.values()]
          .map((each) => ({ ...each, targets: [...each.targets].sort() }))
          .sort((a, b) => (a.path < b.path ? -1 : 1));
      assert.deepEqual(normal(after), normal(expected));
      const { added, changed, removed, equal } = plan.counts;
      assert.equal(added + changed + equal, wanted.files.length);
      assert.equal(removed, plan.removals.length);
      // Carried out once more it changes nothing.
      const roles = [
        ...present.layout.roles,
        ...plan.layout.targetPuts.map((put) => ({ path: put.name, ...put })),
      ];
      const modules = new Map(present.modules);
      if (plan.moduleChange !== null) modules.set(plan.module, plan.moduleChange);
      const again = planLoad(wanted, { modules, files: after, layout: { ...present.layout, roles } });
      assert.equal(changesRepository(again), false, JSON.stringify(again));
    }),
    { numRuns: 3_000 },
  );
  assert.ok(refused > 300 && carried > 300, `${refused} refused, ${carried} carried out`);
});

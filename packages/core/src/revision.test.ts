import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatTarget } from "./deploy-target.ts";
import { byPath, type FileEntry } from "./file.ts";
import { checkPath, foldPath } from "./path.ts";
import { computeManifests, diffSets, findRevisionFaults, type TargetedFile } from "./revision.ts";
import { type Layout, packageClosure, placementsOfRoles } from "./revision-layout.ts";

const ROLES = ["Server", "Server/Job", "Client"];
const PACKAGES = ["A/One", "A/Two", "B/Three"];
const TARGETS = [...ROLES.map((name) => `role:${name}`), ...PACKAGES.map((name) => `package:${name}`)];
const PATHS = ["a", "b", "A", "bin/a", "bin/b", "Bin/a", "bin", "lib/a", "lib/bin/a", "straße", "STRASSE"];

const layouts: fc.Arbitrary<Layout> = fc
  .record({
    relations: fc.uniqueArray(
      fc.record({
        role: fc.constantFrom(...ROLES),
        package: fc.constantFrom(...PACKAGES),
        subdirectory: fc.constantFrom("", "bin", "lib", "lib/bin"),
        module: fc.constantFrom("A", "B"),
      }),
      { maxLength: 5, selector: (relation) => `${relation.role} ${relation.package} ${relation.module}` },
    ),
    requirements: fc.uniqueArray(
      fc.record({ package: fc.constantFrom(...PACKAGES), requires: fc.constantFrom(...PACKAGES) }),
      { maxLength: 4, selector: (row) => `${row.package} ${row.requires}` },
    ),
  })
  .map(({ relations, requirements }) => ({
    roles: ROLES.map((path) => ({ path, description: "", selectable: true, module: null })),
    packages: PACKAGES.map((name) => ({ name, description: "", selectable: true, module: null })),
    relations,
    requirements,
  }));

/** Contents by their digest: one digest has one size. */
const CONTENTS = [
  { sha256: "1".repeat(64), size: 1 },
  { sha256: "2".repeat(64), size: 2 },
];

const files: fc.Arbitrary<TargetedFile[]> = fc.uniqueArray(
  fc
    .record({
      path: fc.constantFrom(...PATHS),
      content: fc.constantFrom(...CONTENTS),
      mode: fc.constantFrom(0o644, 0o755),
      backup: fc.boolean(),
      targets: fc.subarray(TARGETS),
    })
    .map(({ content, ...file }) => ({ ...file, ...content })),
  { selector: (file) => file.path },
);

/** Everything that a role brings, by looking at every pair of relation and package again and again. */
function naivePlaces(layout: Layout, role: string): { package: string; subdirectory: string }[] {
  const needs = (from: string, to: string, seen: string[] = []): boolean =>
    layout.requirements.some(
      (row) =>
        row.package === from &&
        (row.requires === to ||
          (!seen.includes(row.requires) && needs(row.requires, to, [...seen, row.requires]))),
    );
  const named = layout.relations.filter((relation) => relation.role === role);
  const places: { package: string; subdirectory: string }[] = [];
  for (const relation of named) {
    places.push({ package: relation.package, subdirectory: relation.subdirectory });
    for (const other of PACKAGES)
      if (
        other !== relation.package &&
        needs(relation.package, other) &&
        !named.some((row) => row.package === other)
      )
        places.push({ package: other, subdirectory: relation.subdirectory });
  }
  return places;
}

function naiveEntries(all: readonly TargetedFile[], layout: Layout, target: string): Map<string, FileEntry> {
  const entries = new Map<string, FileEntry>();
  const colon = target.indexOf(":");
  const name = target.slice(colon + 1);
  const isRole = target.startsWith("role:");
  const places = isRole
    ? naivePlaces(layout, name)
    : [name, ...(packageClosure(layout).get(name) ?? [])].map((each) => ({
        package: each,
        subdirectory: "",
      }));
  for (const { targets, ...file } of all) {
    if (isRole && targets.includes(target)) entries.set(file.path, file);
    for (const place of places)
      if (targets.includes(`package:${place.package}`)) {
        const path = [place.subdirectory, file.path].filter((part) => part !== "").join("/");
        entries.set(path, { ...file, path });
      }
  }
  return entries;
}

test("manifests hold what an installation of the target gets, in order, as a naive walk finds it", () => {
  fc.assert(
    fc.property(files, layouts, (all, layout) => {
      fc.pre(findRevisionFaults(all, layout).length === 0);
      const manifests = [...computeManifests(all, layout)];
      assert.deepEqual(
        manifests.map((manifest) => formatTarget(manifest.target)),
        [...TARGETS].sort(),
      );
      for (const { target, entries } of manifests) {
        const naive = naiveEntries(all, layout, formatTarget(target));
        assert.deepEqual(entries, [...naive.values()].sort(byPath));
      }
    }),
    { numRuns: 500 },
  );
});

test("the same rows in another order give the same manifests", () => {
  fc.assert(
    fc.property(files, layouts, (all, layout) => {
      fc.pre(findRevisionFaults(all, layout).length === 0);
      const turned: Layout = {
        roles: layout.roles.toReversed(),
        packages: layout.packages.toReversed(),
        relations: layout.relations.toReversed(),
        requirements: layout.requirements.toReversed(),
      };
      assert.deepEqual([...computeManifests(all.toReversed(), turned)], [...computeManifests(all, layout)]);
    }),
  );
});

/** Whether two places of two files cannot stand side by side, by comparing each with each. */
function naiveClash(all: readonly TargetedFile[], layout: Layout): boolean {
  const places: { path: string; file: TargetedFile }[] = all.map((file) => ({ path: file.path, file }));
  for (const role of ROLES)
    for (const place of naivePlaces(layout, role))
      for (const file of all)
        if (place.subdirectory !== "" && file.targets.includes(`package:${place.package}`))
          places.push({ path: `${place.subdirectory}/${file.path}`, file });
  return places.some((a) => places.some((b) => clashes(a, b, all)));
}

type Placed = { path: string; file: TargetedFile };

function clashes(a: Placed, b: Placed, all: readonly TargetedFile[]): boolean {
  // A file that nobody gets only counts by its own path, against other files' own paths.
  const ownPlace = (placed: Placed) => all.includes(placed.file) && placed.path === placed.file.path;
  const distributed = (placed: Placed) => placed.file.targets.length > 0;
  if (!(distributed(a) && distributed(b)) && !(ownPlace(a) && ownPlace(b))) return false;
  if (a.path === b.path)
    return a.file.sha256 !== b.file.sha256 || a.file.mode !== b.file.mode || a.file.backup !== b.file.backup;
  const left = foldPath(a.path);
  const right = foldPath(b.path);
  return left === right || left.startsWith(`${right}/`) || right.startsWith(`${left}/`);
}

test("a set is refused exactly when two places of it clash", () => {
  let refused = 0;
  let accepted = 0;
  fc.assert(
    fc.property(files, layouts, (all, layout) => {
      const faults = findRevisionFaults(all, layout);
      const expected = naiveClash(all, layout);
      assert.equal(faults.length > 0, expected, JSON.stringify(faults));
      if (expected) refused++;
      else accepted++;
    }),
    { numRuns: 2_000 },
  );
  // Both sides of the decision were really tried.
  assert.ok(refused > 100 && accepted > 100, `${refused} refused, ${accepted} accepted`);
});

test("a path that the grammar refuses is a fault by itself, also where only the subdirectory makes it one", () => {
  const file = {
    path: "a",
    size: 1,
    sha256: "1".repeat(64),
    mode: 0o644,
    backup: false,
    targets: ["package:A/One"],
  };
  const layout: Layout = {
    roles: [{ path: "Server", description: "", selectable: true, module: null }],
    packages: [{ name: "A/One", description: "", selectable: true, module: null }],
    relations: [{ role: "Server", package: "A/One", subdirectory: ".lockstep", module: "A" }],
    requirements: [],
  };
  assert.equal(checkPath("a"), null);
  assert.deepEqual(
    findRevisionFaults([file], layout).map((fault) => [fault.kind, fault.where]),
    [["path", ".lockstep/a"]],
  );
  assert.deepEqual(
    findRevisionFaults([{ ...file, path: "../a", targets: [] }], { ...layout, relations: [] }).map(
      (f) => f.where,
    ),
    ["../a"],
  );
});

test("applying a difference to the one set gives the other, and equal sets have none", () => {
  fc.assert(
    fc.property(files, files, (from, to) => {
      const changes = diffSets(from, to);
      const result = new Map(from.map((file) => [file.path, file]));
      for (const change of changes) {
        assert.deepEqual(result.get(change.path) ?? null, change.from);
        assert.equal(
          change.kind,
          change.from === null ? "added" : change.to === null ? "removed" : "changed",
        );
        if (change.to === null) result.delete(change.path);
        else result.set(change.path, change.to);
      }
      const normal = (all: Iterable<TargetedFile>) =>
        [...all].map((file) => ({ ...file, targets: [...file.targets].sort() })).sort(byPath);
      assert.deepEqual(normal(result.values()), normal(to));
      assert.deepEqual(
        changes.map((change) => change.path),
        changes.map((change) => change.path).sort(),
      );
      assert.deepEqual(diffSets(to, to.toReversed()), []);
    }),
  );
});

test("a package that a role names itself lands only where the role says", () => {
  const layout: Layout = {
    roles: [{ path: "Server", description: "", selectable: true, module: null }],
    packages: PACKAGES.map((name) => ({ name, description: "", selectable: true, module: null })),
    relations: [
      { role: "Server", package: "A/One", subdirectory: "bin", module: "A" },
      { role: "Server", package: "A/Two", subdirectory: "", module: "A" },
    ],
    // In a circle, which must not matter.
    requirements: [
      { package: "A/One", requires: "A/Two" },
      { package: "A/Two", requires: "B/Three" },
      { package: "B/Three", requires: "A/One" },
    ],
  };
  assert.deepEqual(placementsOfRoles(layout).get("Server"), [
    { package: "A/Two", subdirectory: "" },
    { package: "B/Three", subdirectory: "" },
    { package: "A/One", subdirectory: "bin" },
    { package: "B/Three", subdirectory: "bin" },
  ]);
  assert.deepEqual(packageClosure(layout).get("A/One"), ["A/Two", "B/Three"]);
});

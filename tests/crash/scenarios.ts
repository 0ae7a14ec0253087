/** Small installations on a real directory and what is done to them: each shape of change once, few calls each. */
export interface CrashFile {
  readonly path: string;
  readonly content: string;
  readonly mode: number;
}

/** What the driver reads. */
export interface CrashScenario {
  readonly put: readonly CrashFile[];
  readonly remove: readonly string[];
  readonly state: string;
  readonly from: number | null;
  readonly to: number;
  readonly startedAt: number;
  readonly verdict: boolean;
}

export interface CrashStory {
  readonly name: string;
  /** What is crashed. `recover`: the update was killed half-way before. */
  readonly act: "update" | "rollback" | "recover" | "in-place";
  readonly before: readonly CrashFile[];
  readonly scenario: CrashScenario;
}

export const OLD_STARTED_AT = Date.UTC(2026, 0, 1);
export const NEW_STARTED_AT = Date.UTC(2026, 1, 1);

const file = (path: string, content: string, mode = 0o644): CrashFile => ({ path, content, mode });

const BASE = [
  file("bin/run", "run 1", 0o755),
  file("lib/a.js", "a 1"),
  file("lib/b.js", "b 1"),
  file("readme", "1", 0o444),
];

function scenario(
  put: readonly CrashFile[],
  remove: readonly string[],
  more: Partial<CrashScenario> = {},
): CrashScenario {
  return { put, remove, state: "state 2", from: 1, to: 2, startedAt: NEW_STARTED_AT, verdict: true, ...more };
}

const UPDATE = scenario(
  [file("bin/run", "run 2", 0o755), file("lib/a.js", "a 2"), file("readme", "2", 0o444)],
  [],
);
const MIXED = scenario(
  [file("bin/run", "run 2", 0o700), file("new/deep/c.js", "c 2")],
  ["lib/a.js", "lib/b.js"],
);

export const STORIES: readonly CrashStory[] = [
  { name: "fresh installation", act: "update", before: [], scenario: scenario(BASE, [], { from: null }) },
  { name: "update", act: "update", before: BASE, scenario: UPDATE },
  {
    name: "files added",
    act: "update",
    before: BASE,
    scenario: scenario([file("lib/c/d.js", "d"), file("x", "x")], []),
  },
  {
    name: "files removed",
    act: "update",
    before: BASE,
    scenario: scenario([], ["lib/a.js", "lib/b.js", "readme"]),
  },
  {
    name: "file to directory and back",
    act: "update",
    before: BASE,
    scenario: scenario([file("readme/first", "r"), file("lib", "lib 2")], ["readme", "lib/a.js", "lib/b.js"]),
  },
  {
    name: "update refused after the switch",
    act: "update",
    before: BASE,
    scenario: { ...MIXED, verdict: false },
  },
  { name: "rollback", act: "rollback", before: BASE, scenario: MIXED },
  { name: "recovery forward", act: "recover", before: BASE, scenario: MIXED },
  { name: "recovery back", act: "recover", before: BASE, scenario: { ...MIXED, verdict: false } },
];

/** The control: an updater without a record must be found out. */
export const IN_PLACE: CrashStory = {
  name: "update in place",
  act: "in-place",
  before: BASE,
  scenario: UPDATE,
};

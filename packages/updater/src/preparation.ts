import type { HubClient } from "@lockstep/client";
import {
  DEFAULT_SETTINGS,
  type EditsPolicy,
  FILES_LINE,
  formatTarget,
  type InstallState,
  joinManifests,
  makePlan,
  type Plan,
  type PlanRow,
  parseTarget,
  planRows,
} from "@lockstep/core";
import { LockstepError, parseManifest, type RevisionDocument } from "@lockstep/protocol/wire";
import { readStateFile } from "./installation.ts";
import type { InstallationPaths } from "./layout.ts";
import { type ObtainedManifest, obtainManifests, readCached } from "./manifest-cache.ts";
import { type Observation, observe } from "./observe.ts";
import { type ProgressListener, ProgressMeter } from "./progress.ts";
import type { InitialInstallation } from "./run-types.ts";
import { demandSelectable, resolveSelection, type Selection, selectManifests } from "./selection.ts";
import { digestList, type ListDigest, StatIndex } from "./stat-index.ts";

/**
 * From a software revision to a plan: what `plan`, `update`, `install` and `repair` have in common. Nothing here changes
 * anything; what was fetched is only kept by who carries the plan out.
 */
export interface Preparation {
  /** What the present InstallState.config says before its list of files, and the digest of the list; null: there is none. */
  readonly former: { readonly head: string; readonly list: ListDigest } | null;
  /** As it will be. */
  readonly next: InstallState;
  readonly manifests: readonly ObtainedManifest[];
  readonly rows: readonly PlanRow[];
  readonly observation: Observation;
  readonly index: StatIndex;
  readonly plan: Plan;
  readonly edits: EditsPolicy;
  readonly notices: readonly string[];
}

export interface PreparationOptions {
  readonly client: HubClient;
  readonly paths: InstallationPaths;
  /** What to become. */
  readonly goal: Goal;
  readonly edits: EditsPolicy | null;
  /** Read every file, whatever the stat cache says. */
  readonly everything: boolean;
  readonly now: () => number;
  readonly monotonic: () => number;
  readonly progress: ProgressListener;
  readonly signal?: AbortSignal | undefined;
}

export type Goal =
  /** A software revision. `selection` overrides what is installed: a new installation, or one that a plug-in migrates. */
  | {
      readonly kind: "revision";
      readonly document: RevisionDocument;
      readonly initial: InitialInstallation | null;
      readonly roles: readonly string[] | null;
      readonly packages: readonly string[] | null;
    }
  /** What is installed, from the manifests that are kept. */
  | { readonly kind: "installed"; readonly revision: number };

/** Whether permission bits mean anything here. */
const MODES = process.platform !== "win32";

/**
 * Prepares a plan. Throws PATH_REFUSED, INSTALLATION_CONFLICT (two manifests want one place), ROLE_UNKNOWN,
 * PACKAGE_UNKNOWN, MANIFEST_INVALID, INSTALLATION_* and what a hub call throws. Faults of the plan itself are left in it.
 */
export async function prepare(options: PreparationOptions): Promise<Preparation> {
  const { paths, goal, progress } = options;
  const initial = goal.kind === "revision" ? goal.initial : null;
  const file = initial === null ? readStateFile(paths) : null;
  const former = file?.state ?? null;
  progress({ kind: "phase", phase: "manifests", detail: "reading the lists of files" });
  const { selection, manifests, notices } = await findGoal(options, former);
  const base = former?.files ?? [];
  const joined = joinManifests(
    manifests.map((each) => each.manifest),
    base,
  );
  refuseFaults(joined.faults);
  progress({ kind: "phase", phase: "compare", detail: "comparing with what is installed" });
  const rows = planRows(base, joined.entries);
  const list = file === null ? null : digestList(file.text);
  const index =
    options.everything || list === null
      ? StatIndex.empty(base.length)
      : StatIndex.read(paths.index, base.length, list);
  const meter = new ProgressMeter(progress, "compare", { files: 0, bytes: 0 }, options.monotonic);
  const observation = await observe(paths.root, rows, index, {
    everything: options.everything,
    now: options.now,
    signal: options.signal,
    meter,
  });
  const settings = former?.settings ?? initial?.settings ?? DEFAULT_SETTINGS;
  const edits = options.edits ?? settings.edits;
  const plan = makePlan(rows, observation.locals, { edits, modes: MODES });
  const identity = former ?? initial;
  if (identity === null) throw new TypeError("neither an installation nor the beginning of one");
  const next: InstallState = {
    id: identity.id,
    hub: identity.hub,
    ...selection,
    settings,
    manifests: Object.fromEntries(manifests.map((each) => [formatTarget(each.ref.target), each.ref.sha256])),
    files: plan.recorded,
  };
  return {
    former:
      file === null || list === null
        ? null
        : { head: file.text.slice(0, file.text.indexOf(FILES_LINE)), list },
    next,
    manifests,
    rows,
    observation,
    index,
    plan,
    edits,
    notices,
  };
}

async function findGoal(
  options: PreparationOptions,
  former: InstallState | null,
): Promise<{ selection: Selection; manifests: ObtainedManifest[]; notices: string[] }> {
  const { goal, client, paths, signal } = options;
  if (goal.kind === "installed") {
    if (former === null) throw new TypeError("nothing is installed");
    return {
      selection: selectionOf(former),
      manifests: await installedManifests(options, former),
      notices: [],
    };
  }
  const { document, initial } = goal;
  const selection = resolveSelection(
    document,
    goal.roles ?? initial?.roles ?? former?.rolesChosen ?? [],
    goal.packages ?? initial?.packages ?? former?.packagesChosen ?? [],
  );
  if (initial !== null) demandSelectable(document, selection);
  const { refs, vanished } = selectManifests(document, selection);
  const notices = vanished
    .filter((name) => initial === null || !document.selectableRoles.includes(name))
    .map((name) => `software revision ${document.number} has no files for ${name} any more`);
  const manifests = await obtainManifests(client, paths, refs, former?.manifests ?? {}, signal);
  return { selection, manifests, notices };
}

function selectionOf(state: InstallState): Selection {
  const { roles, rolesChosen, packages, packagesChosen } = state;
  return { roles, rolesChosen, packages, packagesChosen };
}

/** The manifests of what is installed, from the cache; what is missing there comes from the hub, if it still has it. */
async function installedManifests(
  options: PreparationOptions,
  former: InstallState,
): Promise<ObtainedManifest[]> {
  const { client, paths, signal, goal } = options;
  const found: ObtainedManifest[] = [];
  let missing = false;
  for (const [name, sha256] of Object.entries(former.manifests)) {
    const target = parseTarget(name);
    const text = readCached(paths, sha256);
    if (target === null || text === null) missing = true;
    else {
      const manifest = parseManifest(text);
      const bytes = manifest.entries.reduce((sum, entry) => sum + entry.size, 0);
      const ref = { target, sha256, size: Buffer.byteLength(text), files: manifest.entries.length, bytes };
      found.push({ ref, manifest, text, way: "cached", former: null });
    }
  }
  if (!missing || goal.kind !== "installed") return found;
  const document = await client.revision(goal.revision, { signal });
  const refs = document.manifests.flatMap(({ target: name, ...rest }) => {
    const target = parseTarget(name);
    return target === null || former.manifests[name] !== rest.sha256 ? [] : [{ target, ...rest }];
  });
  if (refs.length < Object.keys(former.manifests).length)
    throw new LockstepError(
      "MANIFEST_INVALID",
      "the list of what is installed is lost, and the hub has another one",
      {
        expected: Object.keys(former.manifests).length,
        found: refs.length,
        hint: "Run lockstep update instead: it brings the installation to the current software revision.",
      },
    );
  return await obtainManifests(client, paths, refs, former.manifests, signal);
}

/** Throws when the lists of files cannot be installed together. */
function refuseFaults(faults: ReturnType<typeof joinManifests>["faults"]): void {
  const [first] = faults;
  if (first === undefined) return;
  const hostile = faults.some((fault) => fault.kind !== "conflict");
  throw new LockstepError(
    hostile ? "PATH_REFUSED" : "INSTALLATION_CONFLICT",
    hostile
      ? "the hub lists paths that no installation accepts"
      : "the chosen machine roles and packages want different files in one place",
    {
      expected: "paths of the portable grammar, each for one file",
      found: `${first.path}: ${first.problem}`,
      faults: faults.map(({ path, problem }) => ({ where: path, problem })),
      hint: hostile
        ? "Nothing was changed. Look at who can write to the hub."
        : "Nothing was changed. Choose roles that fit together, or correct the release.",
    },
  );
}

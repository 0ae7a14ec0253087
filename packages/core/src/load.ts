import { checkDeclaration, declareTargets, NO_LAYOUT_CHANGE } from "./load-declaration.ts";
import { checkFiles, checkOwners, planFiles } from "./load-files.ts";
import { checkModuleOffer, checkRequirements, moduleNotices, resultingVersion } from "./load-module.ts";
import {
  CUSTOM_MODULE,
  type LoadOffer,
  type LoadPlan,
  type LoadRefusal,
  type RepositoryState,
  type StoredFile,
} from "./load-offer.ts";
import { findRevisionFaults } from "./revision.ts";
import type { Layout } from "./revision-layout.ts";

/*
 * What a load does to the repository, decided as a value: it can be shown (`--dry-run`), refused, or carried out.
 *
 * The four kinds (domain 1.9): a `version` replaces the module's whole file set, so it can remove files; a
 * `service-pack` adds and changes; a `hotfix` changes only what is known; `custom` adds and changes files of the module
 * CCC, which no load of another module touches. Whatever stands against a load is reported all at once.
 */

/**
 * Decides what a load does. Never throws: what stands against it is in `refusals`, and then nothing else of the plan
 * may be carried out. `own` is for Lockstep's own set-up, the one that may load the module LOCKSTEP.
 */
export function planLoad(
  offer: LoadOffer,
  state: RepositoryState,
  options: { own?: boolean } = {},
): LoadPlan {
  const own = options.own ?? false;
  const module = offer.kind === "custom" ? CUSTOM_MODULE : offer.module.id;
  const stored = state.modules.get(module) ?? null;
  const files = planFiles(offer, module, state);
  const refusals = [
    ...checkModuleOffer(offer, stored, own),
    ...checkFiles(offer),
    ...checkOwners(offer, module, state),
    ...checkRequirements(offer, module, state),
    ...checkDeclaration(offer, module, state.layout),
  ];
  const declared = declareTargets(offer, module, state.layout, files.after);
  // Faults in the offer itself would only be reported a second time, by their consequences.
  if (refusals.length === 0) refusals.push(...newFaults(state, files.after, declared.layout));

  const version = resultingVersion(offer, stored);
  const requires = offer.kind === "custom" ? (stored?.requires ?? []) : offer.module.requires;
  const name = offer.module.name ?? stored?.name ?? null;
  const sameModule =
    stored !== null &&
    stored.version === version &&
    stored.name === name &&
    JSON.stringify(stored.requires) === JSON.stringify(requires);
  return {
    module,
    statuses: files.statuses,
    puts: files.puts,
    removals: files.removals,
    layout: refusals.length === 0 ? declared.change : NO_LAYOUT_CHANGE,
    moduleChange: sameModule ? null : { id: module, version, name, requires },
    attributeChanges: files.attributeChanges,
    undistributed: files.undistributed,
    counts: {
      added: files.puts.filter((put) => put.isNew).length,
      changed: files.puts.filter((put) => !put.isNew).length,
      removed: files.removals.length,
      equal: offer.files.length - files.puts.length,
    },
    refusals,
    notices: [...moduleNotices(offer, module, stored, state), ...declared.notices],
    currentVersion: stored?.version ?? null,
  };
}

/** Whether carrying out the plan would write anything that the software revision is computed from. */
export function changesRepository(plan: LoadPlan): boolean {
  const { layout } = plan;
  return (
    plan.puts.length > 0 ||
    plan.removals.length > 0 ||
    layout.targetPuts.length > 0 ||
    layout.targetRemovals.length > 0 ||
    layout.relationPuts.length > 0 ||
    layout.relationRemovals.length > 0 ||
    layout.requirementPuts.length > 0 ||
    layout.requirementRemovals.length > 0
  );
}

/** The faults of the repository after the load that it does not have already. */
function newFaults(
  state: RepositoryState,
  after: ReadonlyMap<string, StoredFile>,
  layout: Layout,
): LoadRefusal[] {
  // The offer's own paths have been held against the grammar before.
  const faults = findRevisionFaults([...after.values()], layout, { grammar: false });
  if (faults.length === 0) return [];
  // What plain SQL has broken before is no reason against this load; the recalculation complains about it.
  const before = findRevisionFaults([...state.files.values()], state.layout, { grammar: false });
  const known = new Set(before.map((fault) => `${fault.where}\0${fault.problem}`));
  return faults
    .filter((fault) => !known.has(`${fault.where}\0${fault.problem}`))
    .map(({ where, problem }) => ({ kind: "path", where, problem }));
}

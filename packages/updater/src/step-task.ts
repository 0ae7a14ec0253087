import type { Preparation } from "./preparation.ts";
import type { StepTask } from "./steps.ts";

/** What steps need to know: which manifests changed, and where the contents stand that they build on. */
export function stepTask(
  { manifests, rows, observation }: Preparation,
  note: StepTask["note"],
): Pick<StepTask, "sources" | "findLocal" | "note"> {
  const sources = manifests.flatMap(({ ref, manifest, former }) =>
    former === null
      ? []
      : [
          {
            from: former.sha256,
            to: ref.sha256,
            fromEntries: former.manifest.entries,
            toEntries: manifest.entries,
          },
        ],
  );
  let places: Map<string, string> | null = null;
  const findPlaces = () => {
    const found = new Map<string, string>();
    for (const [position, { path, recorded }] of rows.entries()) {
      const local = observation.locals[position];
      if (local?.kind === "recorded" && recorded !== null) found.set(recorded.sha256, path);
      else if (local?.kind === "file" && local.sha256 !== null) found.set(local.sha256, path);
    }
    return found;
  };
  const findLocal = (sha256: string) => {
    places ??= findPlaces();
    return places.get(sha256) ?? null;
  };
  return { sources, findLocal, note };
}

/**
 * "Did you mean": the known name that a misspelt one most likely stands for. One for every file and list that people
 * write names into, so that the same slip gets the same help everywhere.
 */

/** Of longer lists nothing is suggested: a check with many faults would take too long. */
const KNOWN_MAX = 500;
const DISTANCE_MAX = 3;

/** Returns null when none is near enough. Case does not count. */
export function suggest(
  name: string,
  known: readonly string[],
  distanceMax: number = DISTANCE_MAX,
): string | null {
  if (known.length > KNOWN_MAX) return null;
  let best: { readonly each: string; readonly distance: number } | null = null;
  for (const each of known) {
    // Of a short word nearly everything is near.
    const limit = Math.min(distanceMax, Math.floor(each.length / 3));
    if (Math.abs(each.length - name.length) > limit) continue;
    const distance = editDistance(name.toLowerCase(), each.toLowerCase());
    if (distance <= limit && (best === null || distance < best.distance)) best = { each, distance };
  }
  return best?.each ?? null;
}

/** How many insertions, removals and replacements of one character make one text of the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, left] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, right] of [...b].entries())
      next.push(
        Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (left === right ? 0 : 1)),
      );
    row = next;
  }
  return row.at(-1) ?? 0;
}

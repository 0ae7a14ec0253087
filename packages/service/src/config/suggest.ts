/** The known key that a misspelt one most likely means, whatever its case; null when none is near enough. */
export function suggestKey(key: string, known: readonly string[], distanceMax = 3): string | null {
  const distances = known
    .map((each) => ({ each, distance: editDistance(key.toLowerCase(), each.toLowerCase()) }))
    // Of a short word nearly everything is near.
    .filter(({ each, distance }) => distance <= Math.min(distanceMax, Math.floor(each.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return distances[0]?.each ?? null;
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

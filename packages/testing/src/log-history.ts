/**
 * Judges the log of a virtual server after it has moved: is it one unbroken log?
 *
 * Each record names its node, its term (the fencing token of the lease) and a count that grows by one with each record of
 * one run of the service, from 1 on. So the file itself shows what is missing, came twice, stands at a wrong place or was
 * cut. What nobody can see in the file: records that a service which was killed had not written yet.
 */
interface Place {
  readonly node: string;
  readonly term: number;
  readonly count: number;
}

const RECORD =
  /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([^\s/]+)\/(\d+)\.(\d+) (Info {3}|Warning|Serious) (.+)$/;
/** The beginning of a record, where none may begin: another writer's bytes in the middle of a line. */
const INSIDE = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [^\s/]+\/\d+\.\d+ (?:Info {3}|Warning|Serious) /;

/**
 * Everything that is wrong, in plain words; empty: it is whole. `files`: the log and its backups as texts, oldest first.
 * `mayBeTorn`: a service was killed in the middle of a write; its last line may be cut, and is told apart from a line
 * that another one wrote into.
 */
export function findLogFaults(
  files: readonly string[],
  { mayBeTorn = false }: { readonly mayBeTorn?: boolean } = {},
): string[] {
  const faults: string[] = [];
  let before: Place | null = null;
  let torn: number | null = null;
  let number = 0;
  let former = "";
  const nodeOf = new Map<number, string>();
  for (const [index, file] of files.entries()) {
    if (!file.endsWith("\n") && file !== "" && !(mayBeTorn && index === files.length - 1))
      faults.push(`file ${index + 1} ends in the middle of a line`);
    for (const line of file.replace(/\n$/, "").split("\n")) {
      if (file === "") continue;
      number++;
      const [, , node, term, count, , text = ""] = RECORD.exec(line) ?? [];
      if (node === undefined || INSIDE.test(text)) {
        if (mayBeTorn && node === undefined && !INSIDE.test(line.slice(1))) torn = number;
        else faults.push(`line ${number} is no whole record: ${line.slice(0, 120)}`);
        continue;
      }
      const place = { node, term: Number(term), count: Number(count) };
      faults.push(...findPlaceFaults(before, place, number));
      if (line === former) faults.push(`line ${number} is the line before it once more`);
      former = line;
      // Only the last word of a run may be cut.
      if (torn !== null && place.count !== 1)
        faults.push(`line ${torn} is cut, and its writer went on after it`);
      torn = null;
      const owner = nodeOf.get(place.term) ?? place.node;
      nodeOf.set(place.term, owner);
      if (owner !== place.node)
        faults.push(
          `line ${number}: term ${place.term} belongs to ${owner}, and ${place.node} wrote under it`,
        );
      before = place;
    }
  }
  return faults;
}

function findPlaceFaults(before: Place | null, place: Place, number: number): string[] {
  const shown = ({ node, term, count }: Place) => `${node}/${term}.${count}`;
  if (before === null)
    return place.count === 1 ? [] : [`line ${number}: the log begins with ${shown(place)}`];
  if (place.term < before.term) return [`line ${number}: ${shown(place)} stands behind ${shown(before)}`];
  // A run of the service begins at 1, under the same lease too: its engine may start anew.
  if (place.count === 1) return [];
  if (place.term > before.term) return [`line ${number}: the first record of its term is ${shown(place)}`];
  if (place.count === before.count + 1) return [];
  const what = place.count <= before.count ? "comes twice or too late" : "has others missing before it";
  return [`line ${number}: ${shown(place)} ${what}, after ${shown(before)}`];
}

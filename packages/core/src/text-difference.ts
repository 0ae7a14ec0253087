/**
 * What two texts differ in, line by line, as people read it: the unified form of diff(1), with three lines around each
 * change. Myers' greedy algorithm: its cost is the length times the number of differences, so beyond `changesMax` it only
 * says that the texts are different.
 */
const AROUND = 3;
const CHANGES_MAX = 2_000;

interface Edit {
  readonly kind: " " | "-" | "+";
  readonly line: string;
}

/** The lines of the difference, without a header; empty: there is none. */
export function unifiedDifference(before: string, after: string, changesMax = CHANGES_MAX): string[] {
  if (before === after) return [];
  const edits = findEdits(linesOf(before), linesOf(after), changesMax);
  if (edits === null) return [`@@ more than ${changesMax} lines differ @@`];
  return hunksOf(edits);
}

/** A last line without an end is another line than one with it, as diff shows it. */
function linesOf(text: string): string[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  else lines.push(`${lines.pop() ?? ""}\n\\ No newline at end of file`);
  return lines;
}

function findEdits(a: readonly string[], b: readonly string[], changesMax: number): Edit[] | null {
  const reached = new Map<number, number>([[1, 0]]);
  const trail: ReadonlyMap<number, number>[] = [];
  const at = (diagonal: number) => reached.get(diagonal) ?? -1;
  for (let changes = 0; changes <= Math.min(changesMax, a.length + b.length); changes++) {
    trail.push(new Map(reached));
    for (let diagonal = -changes; diagonal <= changes; diagonal += 2) {
      const isDown = diagonal === -changes || (diagonal !== changes && at(diagonal - 1) < at(diagonal + 1));
      let x = isDown ? at(diagonal + 1) : at(diagonal - 1) + 1;
      while (x < a.length && x - diagonal < b.length && a[x] === b[x - diagonal]) x += 1;
      reached.set(diagonal, x);
      if (x >= a.length && x - diagonal >= b.length) return walkBack(a, b, trail);
    }
  }
  return null;
}

function walkBack(
  a: readonly string[],
  b: readonly string[],
  trail: readonly ReadonlyMap<number, number>[],
): Edit[] {
  const edits: Edit[] = [];
  let [x, y] = [a.length, b.length];
  for (let changes = trail.length - 1; changes >= 0; changes--) {
    const at = (diagonal: number) => trail[changes]?.get(diagonal) ?? -1;
    const diagonal = x - y;
    const isDown = diagonal === -changes || (diagonal !== changes && at(diagonal - 1) < at(diagonal + 1));
    const from = isDown ? diagonal + 1 : diagonal - 1;
    const startX = changes === 0 ? 0 : at(from);
    const startY = changes === 0 ? 0 : startX - from;
    while (x > startX && y > startY && a[x - 1] === b[y - 1]) {
      edits.push({ kind: " ", line: a[--x] ?? "" });
      y -= 1;
    }
    if (changes === 0) break;
    if (isDown) edits.push({ kind: "+", line: b[--y] ?? "" });
    else edits.push({ kind: "-", line: a[--x] ?? "" });
  }
  return edits.reverse();
}

function hunksOf(edits: readonly Edit[]): string[] {
  const lines: string[] = [];
  const isNear = edits.map((_, index) =>
    edits.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(({ kind }) => kind !== " "),
  );
  let [lineA, lineB] = [1, 1];
  for (let start = 0; start < edits.length; ) {
    let end = start;
    while (end < edits.length && isNear[end] === isNear[start]) end += 1;
    const part = edits.slice(start, end);
    const countA = part.filter(({ kind }) => kind !== "+").length;
    const countB = part.filter(({ kind }) => kind !== "-").length;
    if (isNear[start] === true) {
      lines.push(`@@ -${range(lineA, countA)} +${range(lineB, countB)} @@`);
      lines.push(...part.flatMap(({ kind, line }) => `${kind}${line}`.split("\n")));
    }
    lineA += countA;
    lineB += countB;
    start = end;
  }
  return lines;
}

const range = (line: number, count: number) =>
  count === 1 ? String(line) : `${count === 0 ? line - 1 : line},${count}`;

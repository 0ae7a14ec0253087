/** Text that compresses as text does: lines with their number and something drawn. The same count and seed, the same text. */
export function numberedLines(count: number, seed: number): Buffer {
  const made: string[] = [];
  for (let i = 0, state = seed; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    made.push(`line ${i} says ${(state >>> 8).toString(36)}\n`);
  }
  return Buffer.from(made.join(""));
}

import type { TestEvent } from "node:test/reporters";

/**
 * A reporter for node:test that writes what a machine wants to know: one JSON document a line for each skipped test
 * and, last, the counts of the runner itself. A run that ends without its counts died, which the reader must notice.
 */
export interface Tally {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly { readonly name: string; readonly file: string; readonly reason: string }[];
}

/** Reads what the reporter wrote. Null when the runner did not live to write its counts. */
export function readTally(text: string): Tally | null {
  const skipped: { name: string; file: string; reason: string }[] = [];
  let counts: { passed: number; failed: number } | null = null;
  for (const line of text.split("\n").filter((each) => each !== "")) {
    const record = JSON.parse(line) as {
      skip?: (typeof skipped)[number];
      counts?: { passed: number; failed: number };
    };
    if (record.skip !== undefined) skipped.push(record.skip);
    if (record.counts !== undefined) counts = record.counts;
  }
  return counts === null ? null : { ...counts, skipped };
}

export default async function* tally(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    if (event.type === "test:pass" || event.type === "test:fail") {
      const { skip, todo, name, file, details } = event.data;
      const why = skip ?? todo;
      if (why === undefined || why === false || details.type === "suite") continue;
      const kind = skip === undefined ? "not done yet" : "no reason given";
      yield `${JSON.stringify({ skip: { name, file: file ?? "", reason: why === true || why === "" ? kind : why } })}\n`;
    }
    // Each file has a summary of its own; the one without a file is that of the whole run.
    if (event.type === "test:summary" && event.data.file === undefined) {
      const { tests, passed, skipped, todo } = event.data.counts;
      // What neither passed nor was left out has failed, also where the runner calls it cancelled.
      yield `${JSON.stringify({ counts: { passed, failed: tests - passed - skipped - todo } })}\n`;
    }
  }
}

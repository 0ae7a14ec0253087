import { relative } from "node:path";
import type { TestEvent } from "node:test/reporters";
import { inspect, styleText } from "node:util";

/**
 * A reporter for node:test that a person can follow: a line for each file as it ends, each failure in full as soon as
 * it happens, and nothing about what went well.
 */
export default async function* progress(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const files = new Map<string, { passed: number; failed: number; skipped: number; ms: number }>();
  for await (const event of source) {
    if (event.type === "test:fail" || event.type === "test:pass") {
      const { name, file = "", nesting, skip, details, line } = event.data;
      const count = files.get(file) ?? { passed: 0, failed: 0, skipped: 0, ms: 0 };
      files.set(file, count);
      if (nesting === 0) count.ms += details.duration_ms;
      if (details.type === "suite") continue;
      if (skip !== undefined && skip !== false) count.skipped++;
      else if (event.type === "test:pass") count.passed++;
      else {
        count.failed++;
        yield `${styleText("red", "FAILED")} ${name}\n       ${relative(".", file)}:${line ?? 0}\n${explain(event.data.details.error)}\n`;
      }
    }
    if (event.type === "test:summary" && event.data.file !== undefined) {
      const count = files.get(event.data.file);
      const skipped = count !== undefined && count.skipped > 0 ? `, ${count.skipped} skipped` : "";
      const mark = event.data.success ? styleText("green", "ok    ") : styleText("red", "FAILED");
      const seconds = (event.data.duration_ms / 1000).toFixed(1).padStart(6);
      yield `${mark} ${relative(".", event.data.file).padEnd(60)} ${seconds} s  ${count?.passed ?? 0} passed${skipped}\n`;
    }
  }
}

function explain(error: Error): string {
  const cause = error.cause ?? error;
  return inspect(cause, { depth: 6, colors: false }).replaceAll(/^/gm, "       ");
}

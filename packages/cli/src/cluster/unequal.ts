import type { NodeFinding } from "@lockstep/core";
import type { Fault } from "@lockstep/protocol/wire";

const SHOWN_DIGITS = 12;

/** What must be equal on all nodes and is not, by the marks that their examinations found. */
export function findUnequal(findings: readonly (NodeFinding & { readonly node: string })[]): Fault[] {
  const byId = new Map<string, Map<string, string[]>>();
  for (const { id, mark, node } of findings) {
    if (mark === null) continue;
    const marks = byId.get(id) ?? new Map<string, string[]>();
    byId.set(id, marks.set(mark, [...(marks.get(mark) ?? []), node]));
  }
  return [...byId]
    .filter(([, marks]) => marks.size > 1)
    .map(([id, marks]) => ({
      where: id,
      problem: `is not the same on all nodes: ${[...marks]
        .map(([mark, nodes]) => `${mark.slice(0, SHOWN_DIGITS)} on ${nodes.join(", ")}`)
        .join("; ")} (S8)`,
    }));
}

import type { NodeFinding } from "@lockstep/core";
import { printable } from "@lockstep/platform";
import type { Output } from "../screen/output.ts";

/** One finding: state, what was looked at, what was found; below it what to do. */
export function tellFinding(output: Output, { id, state, detail, hint }: NodeFinding, node?: string): void {
  if (!output.data.interactive) {
    const cells = [...(node === undefined ? [] : [node]), state, id, detail, hint ?? ""];
    output.line(cells.map((cell) => printable(cell)).join("\t"));
    return;
  }
  const words = {
    ok: output.paintData("green", "ok     "),
    warning: output.paintData("yellow", "warning"),
    failed: output.paintData("red", "failed "),
  };
  output.line(`${words[state]}  ${printable(id)}: ${printable(detail)}`);
  if (hint !== null) output.line(`         ${printable(hint)}`);
}

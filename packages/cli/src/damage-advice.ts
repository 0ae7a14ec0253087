import type { EditsPolicy } from "@lockstep/core";
import { counted } from "./screen/format.ts";

/** What the advice goes by, of each file that is not as installed. */
interface Damaged {
  readonly path: string;
  readonly problem: string;
  readonly found: string;
}

/**
 * What mends these damages, of which there is at least one, under this policy for edited files: words for people, with the
 * command. What stands in the way of a file (a link in the place of its folder, say) is removed by nobody but its owner: a
 * repair refuses to begin then, so it is no advice before that is gone.
 */
export function adviseOnDamage(directory: string, damages: readonly Damaged[], edits: EditsPolicy): string {
  const repair = `lockstep verify ${directory} --repair`;
  const blocked = damages.filter(({ problem }) => problem === "blocked");
  const [first] = blocked;
  const mends =
    edits === "replace"
      ? `${repair} mends it.`
      : `${repair} mends what is missing and leaves what was edited, as its policy says; with --edits replace it brings everything back.`;
  if (first === undefined) return mends;
  const others = blocked.length === 1 ? "" : ` and ${counted(blocked.length - 1, "file")} more`;
  return `A repair would be refused: something that is not the product's is in the way of ${first.path}${others} (${first.found}). Move that out of the installation first; then ${mends}`;
}

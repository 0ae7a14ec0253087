import { existsSync, rmSync, writeFileSync } from "node:fs";
import type { Resource, ResourceContext } from "@lockstep/cluster";

/** Something that one node has or has not, and that anybody can look at: a file in place of an address. */
export function openFileResource({ definition, token }: ResourceContext): Resource {
  const file = String(definition.settings.file);
  const take = () => rmSync(file, { force: true });
  return {
    online: async () => {
      if (token() === null) throw new Error("no lease");
      writeFileSync(file, String(token()));
    },
    offline: async () => take(),
    check: async () => (existsSync(file) ? null : "the file is gone"),
    terminate: async () => take(),
    undo: [["/bin/rm", "-f", file]],
  };
}

import type { Targets } from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { readLayout } from "./state.ts";

/** All machine roles and installation packages, with how many files are assigned to each itself. */
export async function listTargets(pool: pg.Pool): Promise<Targets> {
  return await withTransaction(
    pool,
    async ({ client }) => {
      const { layout } = await readLayout(client);
      const { rows } = await client.query<{ target: string; files: number }>(
        `select t.kind || ':' || t.name as target, count(h.file_id)::int as files
         from deploy_target t left join file_has_deploy_target h on h.target_id = t.id group by t.id`,
      );
      const files = new Map(rows.map((row) => [row.target, row.files]));
      return {
        roles: layout.roles.map(({ path, description, selectable }) => ({
          path,
          description,
          selectable,
          files: files.get(`role:${path}`) ?? 0,
          packages: [
            ...new Set(layout.relations.filter((r) => r.role === path).map((r) => r.package)),
          ].sort(),
        })),
        packages: layout.packages.map(({ name, description, selectable }) => ({
          name,
          description,
          selectable,
          requires: layout.requirements.filter((r) => r.package === name).map((r) => r.requires),
          files: files.get(`package:${name}`) ?? 0,
        })),
      };
    },
    { isolation: "repeatable read", readOnly: true },
  );
}

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseNodeConfig } from "../../packages/cluster/src/node/node-config.ts";
import {
  type ConfigTable,
  NODE_CONFIG_ROOT,
  NODE_CONFIG_TABLES,
} from "../../packages/cluster/src/node/node-config-table.ts";

const document = readFileSync(join(import.meta.dirname, "../../docs/reference/node-config.md"), "utf8");

/** The rows of a table as the document has to have them; printed where they differ, to be pasted. */
function rowsOf(table: ConfigTable): string {
  const rows = Object.entries(table).map(([key, { default: value, defaultText, unit, description }]) => {
    const shown =
      value === undefined ? "must be given" : `\`${value}\`${unit === undefined ? "" : ` ${unit}`}`;
    return `| \`${key}\` | ${defaultText ?? shown} | ${description} |`;
  });
  return ["| Key | Default | Meaning |", "| --- | --- | --- |", ...rows].join("\n");
}

test("the reference of the node configuration shows every key as the program knows it", () => {
  for (const [title, table] of Object.entries({ "At the root": NODE_CONFIG_ROOT, ...NODE_CONFIG_TABLES })) {
    const heading = title === "At the root" ? title : `[${title}]`;
    const rows = rowsOf(table);
    assert.ok(document.includes(`## ${heading}\n\n${rows}\n`), `## ${heading}\n\n${rows}`);
  }
});

test("the example of the reference is a configuration", () => {
  const example = /```toml\n([\s\S]*?)```/.exec(document)?.[1] ?? "";
  const { name, coordination } = parseNodeConfig(example, "/etc/lockstep/node.toml");
  assert.equal(name, "alpha");
  assert.equal(coordination.store, "etcd");
});

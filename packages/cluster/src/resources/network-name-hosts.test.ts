import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { hostsBlock, hostsUndo, replaceHostsBlock } from "./network-name-hosts.ts";

test("the guard takes the block out of a file of hosts, and nothing that follows one without its end", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-hosts-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, "hosts");
  const block = hostsBlock("APP");
  const undone = (text: string) => {
    writeFileSync(file, text);
    const [program, ...args] = hostsUndo(block, file);
    execFileSync(program, args);
    return readFileSync(file, "utf8");
  };
  const others = "127.0.0.1 localhost\n::1 localhost\n";
  for (const text of [
    others,
    replaceHostsBlock(others, block, ["10.0.0.1 app"]),
    `${replaceHostsBlock("", block, ["10.0.0.1 app"])}${others}`,
    `${block.begin}\n${others}`,
    `${block.end}\n${block.begin}\n${others}`,
  ])
    assert.equal(undone(text), replaceHostsBlock(text, block, []));
});

import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Announcer } from "./ip-address-announcer.ts";
import { readIpAddressSettings } from "./ip-address-settings.ts";

test("an announcement that has not left when the address goes never does", {
  skip: process.platform === "win32" && "needs /bin/sh",
}, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-test-announcer-"));
  t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 10 }));
  // In the place of arping, on a machine on which it gets no further.
  const slow = join(directory, "slow");
  const begun = join(directory, "begun");
  writeFileSync(slow, `#!/bin/sh\n: > ${begun}\nexec sleep 600\n`);
  chmodSync(slow, 0o755);
  const announcer = new Announcer(slow, readIpAddressSettings({ address: "10.0.0.1/24" }).settings);
  const announced = announcer.announce("eth0");
  while (!existsSync(begun)) await sleep(5);
  announcer.silence();
  // Ended, and not by itself.
  assert.equal(await announced, "status null");
  announcer.close();
});

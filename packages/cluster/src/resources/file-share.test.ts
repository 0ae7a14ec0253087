import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { firstFile } from "./file-share-client.ts";
import { checkFileShareSettings, formatServerConfig, readFileShareSettings } from "./file-share-settings.ts";

const GOOD = { share: "data", path: "/srv/the data", address: ["10.0.0.9", "fd00::9"] };

test("the configuration of a server: its own directories, its own addresses, one share", () => {
  const { settings, faults } = readFileShareSettings({
    ...GOOD,
    validUsers: ["anna", "@staff"],
    options: ["create mask = 0640"],
  });
  assert.deepEqual(faults, []);
  const lines = formatServerConfig(settings, "virtual-server-with-a-name", "/var/lib/x").split("\n");
  for (const line of [
    "netbios name = VIRTUAL-SERVER-",
    "interfaces = 10.0.0.9/32 fd00::9/128",
    "bind interfaces only = yes",
    "private dir = /var/lib/x/private",
    "pid directory = /var/lib/x/pid",
    "[data]",
    "path = /srv/the data",
    "read only = no",
    "guest ok = no",
    "valid users = anna @staff",
    "create mask = 0640",
  ])
    assert.ok(lines.includes(line), line);
  assert.equal(lines.filter((line) => line.startsWith("[")).length, 2);
});

test("every fault of the settings is told at once", () => {
  const faults = checkFileShareSettings({
    share: "a/b",
    path: "srv",
    address: "vs1.example",
    validUsers: ["a b"],
    guest: true,
    options: ["include = /etc/passwd", "no option", "Read Only = no"],
    serverName: "x".repeat(16),
    port: 0,
  });
  const named = faults.map((fault) => fault.split(":")[0]);
  for (const name of ["share", "path", "address", "validUsers", "options", "serverName", "port"])
    assert.ok(named.includes(name), `${name} in ${faults.join(" | ")}`);
  assert.equal(named.filter((name) => name === "options").length, 3);
  assert.match(checkFileShareSettings({ ...GOOD, share: "global" }).join(), /means something else/);
});

test("no setting that is accepted makes a second share or a second line", () => {
  const text = fc.oneof(
    fc.string(),
    fc.constantFrom("[x]", "a\nb", "a = b\n[c]", "x]", "include = /x", "a = %m"),
  );
  const settings = fc.record({
    share: text,
    path: text.map((each) => `/${each}`),
    address: fc.constant("10.0.0.9"),
    validUsers: fc.array(text),
    options: fc.array(text),
    serverName: text,
    forceUser: text,
  });
  fc.assert(
    fc.property(settings, (drawn) => {
      const read = readFileShareSettings(drawn);
      if (read.faults.length > 0) return;
      const lines = formatServerConfig(read.settings, "vs1", "/var/lib/x").trimEnd().split("\n");
      assert.deepEqual(
        lines.filter((line) => !/^[a-z][a-z0-9 :_-]* = \S/i.test(line)),
        ["[global]", `[${drawn.share}]`],
      );
    }),
    { numRuns: 500 },
  );
});

test("the first file of a listing, directories and names that a command cannot hold left out", () => {
  const listing = `  .                                   D        0  Mon Nov 23 00:34:32 2026
  ..                                  D        0  Mon Nov 23 00:34:32 2026
  old files                          DR        0  Mon Nov 23 00:34:32 2026
  a;b                                 N        6  Mon Nov 23 00:34:32 2026
  the report.txt                      A       12  Mon Nov 23 00:34:32 2026

		264212084 blocks of size 1024. 76135472 blocks available
`;
  assert.equal(firstFile(listing), "the report.txt");
  assert.equal(firstFile(""), null);
});

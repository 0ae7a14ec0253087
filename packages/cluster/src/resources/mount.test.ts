import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseMountHolders } from "./mount-holders.ts";
import { checkMountSettings } from "./mount-settings.ts";
import { locate, mountAt, mountsBelow, parseMountTable } from "./mount-table.ts";

const TABLE = `22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 22 0:41 / /srv/a\\040b rw - nfs4 server:/x\\134y rw,vers=4.2
31 22 8:1 /sub /srv/data ro,relatime master:1 - ext4 /dev/sda1 rw
32 31 0:50 / /srv/data rw - tmpfs none rw,size=64k
33 32 0:51 / /srv/data/inner rw - tmpfs none rw
`;

test("the kernel's table of mounts: names with blanks, the one on top, those below", () => {
  const table = parseMountTable(TABLE);
  assert.equal(table.length, 5);
  assert.equal(mountAt(table, "/srv/a b")?.source, "server:/x\\y");
  assert.equal(mountAt(table, "/srv/data")?.type, "tmpfs");
  assert.equal(mountAt(table, "/srv"), null);
  assert.deepEqual(
    mountsBelow(table, "/srv/data").map(({ id }) => id),
    [33],
  );
  assert.ok(table[2]?.options.has("ro"));
  assert.deepEqual(locate(table, "/srv/data/inner/x"), { device: "0:51", root: "/x" });
  assert.deepEqual(locate(table.slice(0, 3), "/srv/data/x"), { device: "8:1", root: "/sub/x" });
  assert.deepEqual(locate(table.slice(0, 3), "/srv/data"), { device: "8:1", root: "/sub" });
  assert.deepEqual(locate(table, "/home/me"), { device: "0:20", root: "/home/me" });
  assert.deepEqual(locate(table, "/"), { device: "0:20", root: "/" });
});

test("any text for a table is read without an error", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const entry of parseMountTable(text)) assert.equal(typeof entry.directory, "string");
    }),
  );
});

test("holders are told once each, and only those at or below the directory", () => {
  const output = [
    "/proc/10/cwd\t/srv/data",
    "/proc/10/fd/4\t/srv/data/x",
    "/proc/11/fd/12\t/srv/data/log (deleted)",
    "/proc/12/cwd\t/srv/database",
    "/proc/13/maps\t/srv/data/lib.so",
    "nonsense",
  ].join("\n");
  assert.deepEqual(parseMountHolders(output, "/srv/data"), [
    { pid: 10, how: "works there" },
    { pid: 11, how: "has /srv/data/log (deleted) open" },
    { pid: 13, how: "has /srv/data/lib.so mapped" },
  ]);
});

test("every fault of the settings is told at once", () => {
  assert.deepEqual(checkMountSettings({ device: "/dev/sdb1", directory: "/srv/data", type: "ext4" }), []);
  const faults = checkMountSettings({
    directory: "srv/../data/",
    type: "EXT 4",
    options: ["remount,noatime", "rbind"],
    checkMs: 1.5,
    colour: "red",
  });
  const named = faults.map((fault) => fault.split(":")[0]);
  for (const name of ["device", "directory", "type", "options", "checkMs", "colour"])
    assert.ok(named.includes(name), `${name} in ${faults.join(" | ")}`);
  assert.equal(faults.filter((fault) => fault.startsWith("options")).length, 2);
  assert.match(checkMountSettings({ device: "x", directory: "/a", type: "bind" }).join(), /absolute/);
});

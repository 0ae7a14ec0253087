import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { parseMountTable } from "../resources/mount-table.ts";
import { VolumeReach } from "./volume-reach.ts";

const table = () =>
  parseMountTable(
    [
      "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
      "40 22 0:40 / /srv/far rw - nfs4 server:/far rw",
      "41 22 0:41 / /srv/program rw - fuse.some some rw",
    ].join("\n"),
  );

/** A process that is within the kernel and does not go, whatever it is sent. */
class Stuck extends EventEmitter {
  readonly stdio = [];
  readonly signals: string[] = [];
  kill(signal: string): boolean {
    this.signals.push(signal);
    return true;
  }
  unref(): void {}
}

test("a volume that does not answer is named, and nobody else is sent there until who was has come back", async () => {
  const stuck: Stuck[] = [];
  const ask = () => {
    const child = new Stuck();
    stuck.push(child);
    return child as unknown as ChildProcess;
  };
  const reach = new VolumeReach({ table, ask, limitMs: 10 });
  const hanging = { path: "/srv/far/app/settings", on: "server:/far (nfs4)" };
  assert.deepEqual(await reach.findHanging(["/etc/app", "/srv/far/app/settings"]), hanging);
  assert.deepEqual(stuck[0]?.signals, ["SIGKILL"]);
  assert.deepEqual(await reach.findHanging(["/srv/far/app/settings"]), hanging);
  assert.equal(stuck.length, 1);
  stuck[0]?.emit("exit", null, "SIGKILL");
  assert.deepEqual(await reach.findHanging(["/srv/far/app/settings"]), hanging);
  assert.equal(stuck.length, 2);
});

test("a volume that answers is asked once for all paths on it, a local disk never", async () => {
  const asked: string[] = [];
  const ask = (path: string) => {
    asked.push(path);
    return spawn("/bin/sh", ["-c", "exit 1"], { stdio: "ignore" });
  };
  const reach = new VolumeReach({ table, ask, limitMs: 60_000 });
  const paths = ["/etc/app", "/srv/farther", "/srv/far/a", "/srv/far/b", "/srv/program"];
  assert.equal(await reach.findHanging(paths), null);
  assert.deepEqual(asked, ["/srv/far/a", "/srv/program"]);
});

test("where nobody can be sent, files are looked at as ever", async () => {
  const ask = () => {
    throw new Error("spawn E2BIG");
  };
  assert.equal(await new VolumeReach({ table, ask }).findHanging(["/srv/far"]), null);
  const missing = () => spawn("/no/such/program", [], { stdio: "ignore" });
  assert.equal(await new VolumeReach({ table, ask: missing }).findHanging(["/srv/far"]), null);
});

test("a volume that has answered while this process stood still does not hang", async () => {
  const ask = () => spawn("/bin/true", { stdio: "ignore" });
  const answer = new VolumeReach({ table, ask, limitMs: 2_000 }).findHanging(["/srv/far"]);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500);
  assert.equal(await answer, null);
});

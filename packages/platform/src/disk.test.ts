import assert from "node:assert/strict";
import { test } from "node:test";
import { systemErrorCode } from "./disk.ts";

test("what rmSync throws without a code is told by its words, and never by those of a path", () => {
  const thrown = (words: string, path = "/srv/app") =>
    Object.assign(new Error(`, Unknown error: ${words} '${path}'`), {
      code: "",
      errno: -4094,
      syscall: "rm",
      path,
    });
  assert.equal(systemErrorCode(thrown("No space left on device")), "ENOSPC");
  assert.equal(systemErrorCode(thrown("Disk quota exceeded")), "EDQUOT");
  assert.equal(systemErrorCode(thrown("Read-only file system")), "EROFS");
  assert.equal(systemErrorCode(thrown("Input/output error", "/srv/quota exceeded")), "EIO");
});

test("errors of Node and of others are none of the system", () => {
  assert.equal(
    systemErrorCode(Object.assign(new Error("gone"), { code: "ENOENT", syscall: "open" })),
    "ENOENT",
  );
  assert.equal(systemErrorCode(Object.assign(new Error("bad"), { code: "ERR_INVALID_ARG_TYPE" })), null);
  assert.equal(systemErrorCode(Object.assign(new Error("empty"), { code: "" })), null);
  assert.equal(systemErrorCode(new Error("a bug")), null);
});

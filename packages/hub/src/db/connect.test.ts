import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol";
import pg from "pg";
import { toDatabaseError } from "./connect.ts";

/** What PostgreSQL says with a code of its own. */
function said(code: string): Error {
  const error = new pg.DatabaseError("could not write blocks 16..16", 0, "error");
  error.code = code;
  return error;
}

test("a full disk of the database is told apart from one that does not run", () => {
  const hints = ["53100", "53300", "57P01"].map((code) => {
    const error = toDatabaseError(said(code));
    assert.ok(isLockstepError(error, "DATABASE_UNREACHABLE"));
    assert.equal(error.found, code);
    return error.hint;
  });
  assert.match(hints[0] ?? "", /^make room on the disk of the database/);
  assert.match(hints[1] ?? "", /max_connections/);
  assert.match(hints[2] ?? "", /^check that PostgreSQL runs/);
});

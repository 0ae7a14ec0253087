import assert from "node:assert/strict";
import { test } from "node:test";
import { isLoopback, isLoopbackHeader } from "./host.ts";

test("an address of this machine alone is known in each of its spellings, and no other one is", () => {
  for (const host of ["localhost", "LOCALHOST", "127.0.0.1", "127.9.8.7", "::1", "[::1]"])
    assert.ok(isLoopback(host), host);
  for (const host of [
    "",
    "0.0.0.0",
    "::",
    "127.0.0.1.example.org",
    "127.1",
    "10.0.0.1",
    "localhost.example.org",
  ])
    assert.ok(!isLoopback(host), host);
});

test("a Host header means this machine with any port, and never by a stranger's name", () => {
  for (const header of ["localhost", "localhost:8700", "127.0.0.1:1", "[::1]", "[::1]:65535"])
    assert.ok(isLoopbackHeader(header), header);
  for (const header of [
    undefined,
    "",
    "example.org:80",
    "localhost:x",
    "localhost/",
    "a@localhost",
    "::1",
    "127.0.0.1:123456",
  ])
    assert.equal(isLoopbackHeader(header), false, header ?? "none");
});

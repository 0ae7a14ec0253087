import assert from "node:assert/strict";
import { test } from "node:test";
import { formatUrl, parseListen } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol";
import { checkListen } from "./listen-address.ts";

test("addresses to listen on are read with and without host, and written so that others can use them", () => {
  const cases: [string, string][] = [
    ["127.0.0.1:8700", "http://127.0.0.1:8700"],
    ["8700", "http://127.0.0.1:8700"],
    [":8700", "http://127.0.0.1:8700"],
    ["[::1]:80", "http://[::1]:80"],
    ["hub.example:443", "http://hub.example:443"],
  ];
  for (const [text, url] of cases) assert.equal(formatUrl(parseListen(text), false), url);
  assert.equal(formatUrl(parseListen("443"), true), "https://127.0.0.1:443");
  for (const text of ["", "host", "host:", "1:2:99999", "127.0.0.1:70000", "a b:80", "http://x:80"])
    assert.throws(
      () => parseListen(text),
      (error) => isLockstepError(error, "USAGE"),
      text,
    );
});

test("only loopback may be served without token and certificate", () => {
  const refused = (host: string, token: boolean, tls: boolean) => {
    try {
      checkListen({ host, port: 80 }, { token, tls });
      return false;
    } catch (error) {
      assert.ok(isLockstepError(error, "HUB_LISTEN_REFUSED"));
      return true;
    }
  };
  for (const host of ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    assert.equal(refused(host, false, false), false, host);
  for (const host of [
    "0.0.0.0",
    "::",
    "192.0.2.1",
    "127.example.com",
    "localhost.example.com",
    "1270.0.0.1",
  ]) {
    assert.equal(refused(host, true, false), true, host);
    assert.equal(refused(host, false, true), true, host);
    assert.equal(refused(host, true, true), false, host);
  }
});

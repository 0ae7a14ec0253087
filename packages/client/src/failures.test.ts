import assert from "node:assert/strict";
import { test } from "node:test";
import { connectionError } from "./failures.ts";

test("a certificate that is refused says what would mend it", () => {
  const refusal = (code: string) => connectionError(new URL("https://hub.example"), { code });
  for (const [code, hint] of [
    // The option as the commands have it.
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", / --ca-file FILE or LOCKSTEP_CA/],
    ["SELF_SIGNED_CERT_IN_CHAIN", / --ca-file FILE or LOCKSTEP_CA/],
    // Another authority would help with none of these.
    ["CERT_HAS_EXPIRED", /^Renew the certificate/],
    ["CERT_NOT_YET_VALID", /clock/],
    ["ERR_TLS_CERT_ALTNAME_INVALID", /^Use the name that the certificate bears/],
  ] as const) {
    const error = refusal(code);
    assert.deepEqual([error.code, error.found], ["HUB_CERTIFICATE_REFUSED", code]);
    assert.match(error.hint ?? "", hint);
  }
  assert.equal(refusal("ECONNRESET").code, "HUB_UNREACHABLE");
});

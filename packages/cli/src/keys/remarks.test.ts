import assert from "node:assert/strict";
import { test } from "node:test";
import type { HubClient } from "@lockstep/client";
import { isLockstepError, type SigningStatus } from "@lockstep/protocol/wire";
import { awaitRevision } from "../await-revision.ts";
import { remarkOnCertificate, remarksOn, remarksOnInstallations } from "./remarks.ts";

const NOW = Date.UTC(2026, 10, 23);
const DAY_MS = 86_400_000;

interface Kept {
  readonly onHub: boolean;
  readonly days: number;
}

/** A hub with keys of these roles, whose signatures are good for so many days more. */
function status(roles: Partial<Record<SigningStatus["roles"][number]["role"], Kept>>): SigningStatus {
  const usual = {
    root: { onHub: false, days: 400 },
    targets: { onHub: false, days: 300 },
    snapshot: { onHub: true, days: 10 },
    timestamp: { onHub: true, days: 2 },
    ...roles,
  };
  return {
    epoch: 1,
    roles: (["root", "targets", "snapshot", "timestamp"] as const).map((role) => ({
      role,
      version: 1,
      expiresAt: NOW + usual[role].days * DAY_MS,
      threshold: 1,
      keys: [{ id: role, onHub: usual[role].onHub }],
    })),
    orders: [{ id: "o", onHub: true }],
    log: { size: 1, head: "a".repeat(64) },
    awaiting: null,
  };
}

test("nothing is said of keys off the hub, and of signatures that are good or that the hub renews", () => {
  assert.deepEqual(remarksOn(status({}), NOW), []);
});

test("a signature of the release key that ends or has ended is said, with the command that renews it", () => {
  const [soon] = remarksOn(status({ targets: { onHub: false, days: 29 } }), NOW);
  assert.match(soon ?? "", /^the signature of targets ends 2026-12-22 .*keys rotate targets --keys DIR$/);
  const [over] = remarksOn(status({ targets: { onHub: false, days: -1 } }), NOW);
  assert.match(
    over ?? "",
    /^the signature of targets ended 2026-11-22 .*TRUST_EXPIRED.*keys rotate targets --keys DIR$/,
  );
  const [root] = remarksOn(status({ root: { onHub: false, days: -1 } }), NOW);
  assert.match(root ?? "", /keys rotate root/);
  // One that the hub should have renewed.
  const [online] = remarksOn(status({ timestamp: { onHub: true, days: -1 } }), NOW);
  assert.match(online ?? "", /^the signature of timestamp ended .*the hub has to renew it/);
});

test("a signature that the hub has not renewed for long is said before it ends", () => {
  for (const [role, days] of [
    ["timestamp", 0.5],
    ["snapshot", 2.5],
    ["targets", 70],
    ["root", 140],
  ] as const) {
    const [late, ...rest] = remarksOn(status({ [role]: { onHub: true, days } }), NOW).filter(
      (remark) => !remark.includes("whoever owns this hub"),
    );
    assert.match(late ?? "", new RegExp(`^the signature of ${role} ends .*the hub has to renew it`));
    assert.deepEqual(rest, []);
  }
});

test("a certificate that ends soon, has ended, or is not good yet is said, by the clock of the hub", () => {
  const remark = (secondsLeft: number) =>
    remarkOnCertificate({
      certificate: { subject: "DNS:hub", notBefore: NOW - 90 * DAY_MS, expiresAt: NOW, secondsLeft },
    });
  const daySeconds = 86_400;
  assert.equal(remark(8 * daySeconds), null);
  assert.match(remark(6 * daySeconds) ?? "", /\(DNS:hub\) expires 2026-11-23 00:00:00Z, .* renew it/);
  assert.match(remark(-1) ?? "", /\(DNS:hub\) expired 2026-11-23 00:00:00Z, .* renew it/);
  assert.match(remark(91 * daySeconds) ?? "", /not good before 2026-08-25 00:00:00Z, .*clock/);
  assert.equal(remarkOnCertificate({ certificate: null }), null);
  assert.equal(remarkOnCertificate({}), null, "a hub of an older version");
});

test("a hub that has lost its keys is told how it gets new ones", () => {
  const lost = status({ snapshot: { onHub: false, days: 10 }, timestamp: { onHub: false, days: 2 } });
  const remarks = remarksOn(lost, NOW);
  assert.equal(remarks.length, 1);
  assert.match(remarks[0] ?? "", /keys for snapshot and timestamp, .*lockstep keys recover --keys DIR/);
});

test("whoever waits for a revision of such a hub is told it as well, and once", async () => {
  const lost = status({ timestamp: { onHub: false, days: 2 } });
  const hub = {
    loadRevision: async () => ({ revision: null }),
    signingStatus: async () => lost,
    dbQueue: async () => ({ stopped: false, stoppedReason: null }),
  };
  const said: string[] = [];
  const wait = awaitRevision(
    hub as unknown as HubClient,
    { load: 1, changes: true, revisionBefore: 1 },
    { waitSeconds: 0, signal: new AbortController().signal, onStopped: (remark) => void said.push(remark) },
  );
  await assert.rejects(wait, (error) => {
    assert.ok(isLockstepError(error, "REVISION_TIMEOUT"));
    assert.match(error.hint ?? "", /lockstep keys recover/);
    return true;
  });
  assert.match(said.join("|"), /^waiting: this hub does not have its keys for timestamp,[^|]*$/);
});

test("a load that changes nothing ends like the first one while a revision waits for its signature", async () => {
  const waiting = { ...status({}), awaiting: { revision: 2, signatures: 0, needed: 1 } };
  const ask = (answer: SigningStatus) =>
    awaitRevision(
      { signingStatus: async () => answer } as unknown as HubClient,
      { load: 0, changes: false, revisionBefore: 1 },
      { signal: new AbortController().signal, onStopped: () => assert.fail() },
    );
  await assert.rejects(ask(waiting), {
    code: "REVISION_AWAITS_SIGNATURE",
    expected: "1 signature",
    found: 0,
  });
  assert.equal(await ask(status({})), 1);
});

test("a load that changes nothing while another module's revision waits says whose that is", async () => {
  const waiting = { ...status({}), awaiting: { revision: 7, signatures: 0, needed: 1 } };
  const ask = (releases: readonly string[]) =>
    awaitRevision(
      {
        signingStatus: async () => waiting,
        connection: { read: async () => ({ body: Buffer.from(JSON.stringify({ releases, removed: [] })) }) },
      } as unknown as HubClient,
      { load: 0, changes: false, revisionBefore: 6 },
      { module: "APP", signal: new AbortController().signal, onStopped: () => assert.fail() },
    );
  const code = "REVISION_AWAITS_SIGNATURE";
  await assert.rejects(ask(["NXT 16.4.6 (version)", "APPS 2 (hotfix)"]), {
    code,
    message:
      "nothing is new in it: APP is as it was before; but software revision 7, of NXT 16.4.6 (version), APPS 2 (hotfix), waits for the release keys",
  });
  const message = "nothing is new in it, and software revision 7 waits for the release keys";
  await assert.rejects(ask(["NXT 16.4.6 (version)", "APP 1 (version)"]), { code, message });
  await assert.rejects(ask([]), { code, message }, "a hub of an older version does not say");
});

test("one installation is not spoken of as several, nor hundreds as those that the hub names", () => {
  const one = { id: "i", host: "h", directory: "/app", seenAt: NOW };
  const said = (installations: number, missing: number) =>
    remarksOnInstallations({
      installations,
      enrolled: installations - missing,
      openSecrets: 0,
      // The hub names so many at most.
      notEnrolled: Array<typeof one>(Math.min(missing, 100)).fill(one),
      alarms: [],
    })[0] ?? "";
  assert.match(said(1, 1), /^1 of 1 installation is not enrolled/);
  assert.match(said(3, 2), /^2 of 3 installations are not enrolled/);
  assert.match(said(303, 302), /^302 of 303 installations are not enrolled[^,]*, .*(?:i on h, ){5}\.\.\.$/);
});

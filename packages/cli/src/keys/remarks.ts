import { isRenewalLate, judgeCertificate } from "@lockstep/core";
import type { EnrolmentStatus, HubStatus, SigningStatus } from "@lockstep/protocol/wire";
import { counted, formatUtc } from "../screen/format.ts";

const SOON_MS = 30 * 86_400_000;

/** What somebody should do about installations: alarms first. */
export function remarksOnInstallations({
  alarms,
  notEnrolled,
  installations,
  enrolled,
}: EnrolmentStatus): string[] {
  const remarks = alarms.map(
    ({ kind, subject, detail, count }) =>
      `alarm ${kind}, installation ${subject}: ${detail}${count > 1 ? ` (${count} times)` : ""}`,
  );
  if (notEnrolled.length > 0) {
    const names = notEnrolled.slice(0, SHOWN_MAX).map(({ id, host }) => `${id} on ${host}`);
    const more = notEnrolled.length > SHOWN_MAX ? ", ..." : "";
    // The hub names the first hundred.
    const count = Math.max(notEnrolled.length, installations - enrolled);
    remarks.push(
      `${count} of ${counted(installations, "installation")} ${count === 1 ? "is" : "are"} not enrolled, so others could report in their place (lockstep fleet enrol ID): ${names.join(", ")}${more}`,
    );
  }
  return remarks;
}

const SHOWN_MAX = 5;

/** Keys that a hub has lost and cannot publish without, said with the remedy; null: it has what it needs. */
export function remarkOnLostKeys({ roles }: Pick<SigningStatus, "roles">): string | null {
  const lost = roles
    .filter(({ role }) => role === "snapshot" || role === "timestamp")
    .filter((role) => !enoughOnHub(role))
    .map(({ role }) => role);
  return lost.length === 0
    ? null
    : `this hub does not have its keys for ${lost.join(" and ")}, so it publishes nothing and renews nothing: put keys/ back from its backup, or lockstep keys recover --keys DIR makes new ones`;
}

function enoughOnHub({ keys, threshold }: SigningStatus["roles"][number]): boolean {
  return keys.filter((key) => key.onHub).length >= threshold;
}

/** What somebody should do about the certificate with which a hub serves, by the clock of the hub; null: nothing. */
export function remarkOnCertificate({ certificate }: Pick<HubStatus, "certificate">): string | null {
  // A hub of an older version says nothing of it.
  if (certificate === null || certificate === undefined) return null;
  const { subject, notBefore, expiresAt } = certificate;
  const whose = `the hub's certificate (${subject})`;
  switch (judgeCertificate(certificate, expiresAt - certificate.secondsLeft * 1000)) {
    case "good":
      return null;
    case "soon":
      return `${whose} expires ${formatUtc(expiresAt)}, and then no installation reaches it: renew it, then start the hub again`;
    case "expired":
      return `${whose} expired ${formatUtc(expiresAt)}, so no installation trusts it: renew it, then start the hub again`;
    case "not-yet":
      return `${whose} is not good before ${formatUtc(notBefore)}, so no installation trusts it: look at the clock of the hub's machine`;
  }
}

/** What somebody should do about keys and signatures at this time, in milliseconds since 1970. */
export function remarksOn(status: SigningStatus, nowMs = Date.now()): string[] {
  const { roles, orders, awaiting } = status;
  const remarks: string[] = [];
  const lost = remarkOnLostKeys(status);
  if (lost !== null) remarks.push(lost);
  const onHub = roles.filter(
    (each) => (each.role === "root" || each.role === "targets") && enoughOnHub(each),
  );
  if (onHub.length > 0)
    remarks.push(
      "whoever owns this hub decides what is installed: root or release keys are on it (lockstep keys init takes them off)",
    );
  if (orders.length === 0)
    remarks.push("no key may sign orders for single installations: lockstep keys rotate orders --keys DIR");
  if (awaiting !== null)
    remarks.push(
      `software revision ${awaiting.revision} waits for a signature: lockstep revision sign --keys DIR`,
    );
  for (const each of roles) {
    const remark = remarkOnExpiry(each, nowMs);
    if (remark !== null) remarks.push(remark);
  }
  return remarks;
}

/** What the hub renews is only said when it has failed to for long. */
function remarkOnExpiry(each: SigningStatus["roles"][number], nowMs: number): string | null {
  const { role, expiresAt } = each;
  if (expiresAt === null) return null;
  const left = expiresAt - nowMs;
  const online = role === "snapshot" || role === "timestamp";
  const remedy =
    online || enoughOnHub(each)
      ? "the hub has to renew it: look at its log and its clock"
      : `its key is not on the hub, so renew it where the root keys are: lockstep keys rotate ${role} --keys DIR`;
  if (left <= 0)
    return `the signature of ${role} ended ${formatUtc(expiresAt)}, so no installation takes anything new (TRUST_EXPIRED); ${remedy}`;
  const renews = online || enoughOnHub(each);
  return (renews ? isRenewalLate(role, left) : left < SOON_MS)
    ? `the signature of ${role} ends ${formatUtc(expiresAt)}, and then no installation takes anything new; ${remedy}`
    : null;
}

import type { HubClient } from "@lockstep/client";
import type { SigningStatus } from "@lockstep/protocol/wire";
import { LockstepError } from "@lockstep/protocol/wire";
import {
  addSignatures,
  appendEntry,
  countSignatures,
  EMPTY_LOG,
  encodeMetadata,
  epochOf,
  isSignedBy,
  type KeyRole,
  makeRoot,
  makeTargets,
  orderKeysOf,
  type PublicKey,
  type RoleKeys,
  readRoot,
  readSignedRevision,
  readTargets,
  rolesOf,
  type Signer,
} from "@lockstep/trust";

/** A change of who has which key: the next root, with everything that has to be signed with it. */
export interface RootChange {
  /** The roles that get other keys. */
  readonly roles: Partial<Record<KeyRole, RoleKeys>>;
  /** Other keys for orders; left out: those that there are. */
  readonly orders?: readonly PublicKey[];
  /** Root keys that are here and count now; the hub adds those that it has. */
  readonly formerSigners: readonly Signer[];
  /** Root keys that are new. */
  readonly newSigners?: readonly Signer[];
  /** Release keys that are here; with them the current revision is signed anew. */
  readonly releaseSigners: readonly Signer[];
  /** Whether history begins anew. */
  readonly newEpoch?: boolean;
}

const DAY_MS = 86_400_000;
const ROOT_MS = 730 * DAY_MS;
const TARGETS_MS = 365 * DAY_MS;

/**
 * Makes the change at the hub. What the hub shows as its present root and revision is taken over into what is signed here,
 * so both must have been signed before by keys that do not lie on the hub, where there are such. Throws
 * SIGNATURE_REFUSED, TRUST_REFUSED.
 */
export async function changeRoot(hub: HubClient, change: RootChange): Promise<SigningStatus> {
  const present = readRoot(await hub.signedDocument("root.json"));
  const { formerSigners } = change;
  if (formerSigners.length > 0 && !formerSigners.some(({ key }) => isSignedBy(present, key)))
    throw notOurs(
      "the root that the hub shows",
      formerSigners.map(({ key }) => key),
    );
  const epoch = epochOf(present.signed) + (change.newEpoch === true ? 1 : 0);
  const root = makeRoot({
    version: present.signed.version + 1,
    expiresMs: Date.now() + ROOT_MS,
    roles: { ...rolesOf(present.signed), ...change.roles },
    epoch,
    orders: change.orders ?? orderKeysOf(present.signed).keys,
  });
  await addSignatures(root, [...formerSigners, ...(change.newSigners ?? [])]);
  const targets = change.releaseSigners.length === 0 ? null : await signCurrent(hub, change, present);
  return await hub.putRoot(
    Buffer.from(encodeMetadata(root)).toString("utf8"),
    targets === null ? null : Buffer.from(targets).toString("utf8"),
  );
}

/** The current revision under the next version of the targets; null before there is one. */
async function signCurrent(
  hub: HubClient,
  { formerSigners, releaseSigners, newEpoch = false }: RootChange,
  present: ReturnType<typeof readRoot>,
): Promise<Uint8Array | null> {
  const { roles } = await hub.signingStatus();
  const version = roles.find(({ role }) => role === "targets")?.version ?? null;
  if (version === null) return null;
  const bytes = await hub.signedDocument(`${version}.targets.json`);
  if (formerSigners.length > 0 && !countSignatures(present, "targets", bytes).enough)
    throw notOurs(`${version}.targets.json that the hub shows`, rolesOf(present.signed).targets.keys);
  const { document, log } = readSignedRevision(readTargets(bytes).signed);
  const entry = { index: 1, revision: document.number, digest: document.digest };
  const targets = makeTargets(version + 1, Date.now() + TARGETS_MS, {
    document,
    log: newEpoch ? appendEntry(EMPTY_LOG, entry) : log,
  });
  await addSignatures(targets, releaseSigners);
  return encodeMetadata(targets);
}

function notOurs(what: string, keys: readonly PublicKey[]): LockstepError {
  return new LockstepError("TRUST_REFUSED", `${what} is not signed by the keys that it must be signed by`, {
    expected: `a signature of ${keys.map(({ id }) => id.slice(0, 12)).join(" or ")}`,
    found: "none that is good",
    hint: "Nothing was signed. Somebody may have taken the hub over: do not give it your keys, look at who can write to it.",
  });
}

/** Demands that the root keys which are here or at the hub can change anything. Throws KEY_MISSING. */
export function demandRootKeys(status: SigningStatus, here: readonly Signer[]): void {
  const root = status.roles.find(({ role }) => role === "root");
  if (root === undefined) return;
  const ids = new Set(here.map(({ key }) => key.id));
  const found = root.keys.filter(({ id, onHub }) => onHub || ids.has(id)).length;
  if (found >= root.threshold) return;
  throw new LockstepError("KEY_MISSING", "too few root keys are here to change anything", {
    expected: root.threshold,
    found,
    hint: "Bring the key files of the root together in one directory: --keys DIR. Where too few are left for ever, nothing can be changed any more: docs/operating/trust.md says how to begin anew.",
  });
}

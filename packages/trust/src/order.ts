import { createHash } from "node:crypto";
import { LockstepError } from "@lockstep/protocol/wire";
import type { RoleKeys } from "./publish.ts";
import { type Destination, isPositive, orderRefused, readDestination, seal, unseal } from "./sealed.ts";
import type { Signer } from "./signer.ts";

/**
 * Orders: "installation X runs software revision N".
 *
 * Release keys say what a revision is; an order says which of them one installation should be at. It is signed online by a
 * key that the root lists for nothing else, so whoever steals it can move installations among what the release keys signed,
 * and no further. An order names its installation, carries a counter and ends (A24): a captured one is of no use
 * elsewhere, later, or once there was a newer one.
 *
 * Going back below what is installed needs a permit beside the order (A3): signed by the release keys, for one
 * installation, one revision and a short time, and good for going back once.
 *
 * Without any order an installation follows the newest revision. Not promised: that an installation notices an order which
 * never reached it; once it has followed one, it stays by that until another one comes or the time of the last is over.
 */
export interface Order {
  readonly installation: string;
  /** Grows with every order for an installation. */
  readonly counter: number;
  readonly issuedAt: number;
  readonly expiresAt: number;
  /** Null: the newest revision again. */
  readonly go: Destination | null;
}

export interface Permit {
  readonly installation: string;
  /** 32 hexadecimal digits that no other permit has. */
  readonly serial: string;
  readonly revision: number;
  readonly digest: string;
  readonly expiresAt: number;
}

/** What an installation remembers of orders. */
export interface OrderMemory {
  readonly counter: number;
  /** The order itself, as it came. */
  readonly text: string;
  readonly revision: number | null;
  readonly permits: readonly UsedPermit[];
}

/** A permit that was relied on. It is spent once the installation was seen anywhere else than where it went back from. */
interface UsedPermit {
  readonly serial: string;
  readonly from: number;
  readonly spent: boolean;
}

export async function sealOrder(order: Order, signers: readonly Signer[]): Promise<string> {
  return await seal("lockstep-order/1", { ...order }, signers);
}

/** Reads an order that these keys signed. Throws ORDER_REFUSED. */
export function openOrder(text: string, keys: RoleKeys): Order {
  const { installation, counter, issuedAt, expiresAt, go } = unseal("lockstep-order/1", text, keys);
  const destination = go === null ? null : readDestination(go);
  if (
    typeof installation !== "string" ||
    !isPositive(counter) ||
    !isPositive(issuedAt) ||
    !isPositive(expiresAt) ||
    (go !== null && destination === null)
  )
    throw orderRefused("a member is missing or no number");
  return { installation, counter, issuedAt, expiresAt, go: destination };
}

export async function sealPermit(permit: Permit, signers: readonly Signer[]): Promise<string> {
  return await seal("lockstep-permit/1", { ...permit }, signers);
}

/** Reads a permit that the release keys signed. Throws ORDER_REFUSED. */
export function openPermit(text: string, releaseKeys: RoleKeys): Permit {
  const content = unseal("lockstep-permit/1", text, releaseKeys);
  const { installation, serial, revision, digest, expiresAt } = content;
  if (
    typeof installation !== "string" ||
    typeof serial !== "string" ||
    !/^[0-9a-f]{32}$/.test(serial) ||
    !isPositive(revision) ||
    typeof digest !== "string" ||
    !isPositive(expiresAt)
  )
    throw orderRefused("a permit without all of its members");
  return { installation, serial, revision, digest, expiresAt };
}

export interface OrderSituation {
  readonly installation: string;
  /** The installed revision; null: none. */
  readonly installed: number | null;
  /** The newest signed revision. */
  readonly newest: number;
  /** As they came from wherever; null: none came. */
  readonly order: string | null;
  readonly permit: string | null;
  readonly memory: OrderMemory | null;
  readonly orderKeys: RoleKeys;
  readonly releaseKeys: RoleKeys;
  /** Milliseconds since 1970; never runs back. */
  readonly nowMs: number;
}

export interface OrderDecision {
  /** Where to go; null: the newest revision. */
  readonly go: Destination | null;
  /** What to remember from now on. */
  readonly memory: OrderMemory | null;
  readonly order: Order | null;
  /** The permit that allows going back, where the destination is below what is installed. */
  readonly permit: Permit | null;
}

/**
 * What an installation should become, by what came and what it remembers. Throws ORDER_REFUSED (forged, for another
 * installation, a revision that is not released), ORDER_REPLAYED, ORDER_EXPIRED, DOWNGRADE_REFUSED.
 */
export function decideOrder(situation: OrderSituation): OrderDecision {
  const { memory, installed } = situation;
  const text = situation.order ?? memory?.text ?? null;
  if (text === null) return { go: null, memory, order: null, permit: null };
  const order = openOrder(text, situation.orderKeys);
  demandForUs(order, text, situation);
  const permits = (memory?.permits ?? []).map((used) =>
    used.from === installed ? used : { ...used, spent: true },
  );
  const released = order.go === null && memory?.counter === order.counter;
  if (order.expiresAt <= situation.nowMs && !released)
    throw new LockstepError("ORDER_EXPIRED", "the order for this installation is out of date", {
      expected: `an order that is good after ${new Date(situation.nowMs).toISOString()}`,
      found: `one that ended ${new Date(order.expiresAt).toISOString()}`,
      hint: "Nothing new is taken and what is installed goes on. Does the hub still renew its orders: lockstep keys list?",
    });
  const kept = { counter: order.counter, text, revision: order.go?.revision ?? null };
  if (order.go === null || order.go.revision >= (installed ?? 0)) {
    if (order.go !== null && order.go.revision > situation.newest)
      throw orderRefused(`software revision ${order.go.revision}`, `at most the newest, ${situation.newest}`);
    return { go: order.go, memory: { ...kept, permits }, order, permit: null };
  }
  const permit = demandPermit(order.go, situation, permits);
  const used = permits.some(({ serial }) => serial === permit.serial)
    ? permits
    : [...permits, { serial: permit.serial, from: installed ?? 0, spent: false }];
  return { go: order.go, memory: { ...kept, permits: used }, order, permit };
}

function demandForUs(order: Order, text: string, { installation, memory }: OrderSituation): void {
  if (order.installation !== installation)
    throw orderRefused(`an order for ${order.installation.slice(0, 100)}`, `one for ${installation}`);
  if (memory === null || order.counter > memory.counter) return;
  if (order.counter < memory.counter)
    throw new LockstepError("ORDER_REPLAYED", "the order is older than one that was followed here before", {
      expected: `counter ${memory.counter} or higher`,
      found: order.counter,
      hint: "Nothing was changed. Somebody replays old orders, or the hub was restored: give the order once more.",
    });
  if (digestOf(text) !== digestOf(memory.text))
    throw orderRefused(`a second order with counter ${order.counter}`, "the same order, or a newer one");
}

function demandPermit(go: Destination, situation: OrderSituation, permits: readonly UsedPermit[]): Permit {
  const { installation, installed, nowMs } = situation;
  const refuse = (found: string): never => {
    throw new LockstepError(
      "DOWNGRADE_REFUSED",
      `the order leads back from software revision ${installed} to ${go.revision}`,
      {
        expected:
          "a permit of the release keys for this installation and this revision, within its time, unused",
        found,
        hint: "Nothing was changed. If it is meant: lockstep fleet permit ID REVISION.",
      },
    );
  };
  if (situation.permit === null) return refuse("no permit");
  const permit = openPermit(situation.permit, situation.releaseKeys);
  if (permit.installation !== installation)
    return refuse(`a permit for ${permit.installation.slice(0, 100)}`);
  if (permit.revision !== go.revision || permit.digest !== go.digest)
    return refuse(`a permit for software revision ${permit.revision}`);
  if (permit.expiresAt <= nowMs)
    return refuse(`a permit that ended ${new Date(permit.expiresAt).toISOString()}`);
  const used = permits.find(({ serial }) => serial === permit.serial);
  if (used?.spent === true) return refuse("a permit that was used before");
  return permit;
}

/** Reads what was remembered; null for nothing. Damage counts as an alarm, not as nothing. Throws TRUST_DAMAGED. */
export function readOrderMemory(bytes: Uint8Array | null): OrderMemory | null {
  if (bytes === null) return null;
  try {
    const value = JSON.parse(Buffer.from(bytes).toString("utf8")) as OrderMemory;
    if (isPositive(value.counter) && typeof value.text === "string" && Array.isArray(value.permits))
      return value;
  } catch {
    // Told below.
  }
  throw new LockstepError(
    "TRUST_DAMAGED",
    "what this installation remembers of orders cannot be read any more",
    {
      expected: "the record as it was written",
      found: "something else in .lockstep/trust/orders",
      hint: "Look at who can write there. lockstep trust pin DIR --root FILE begins anew.",
    },
  );
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

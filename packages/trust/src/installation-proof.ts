import { createHash } from "node:crypto";
import { holds } from "./sealed.ts";
import type { Signer } from "./signer.ts";

/**
 * How an installation shows a hub who it is: with a key pair of its own, whose public half the hub noted when the
 * installation enrolled by a secret that is good once.
 *
 * It begins sessions. Each carries the next counter and a fresh nonce, and both sides chain them: the new link is a digest
 * of the former one, the counter and the nonce. A copy of the key on a second machine has the same link at first; whoever of
 * the two begins the next session moves the hub's link to one that the other does not know and cannot compute, so the
 * other is refused from then on, whatever counter it shows (A26).
 *
 * An answer may get lost: the installation keeps the nonce that it sent until it knows, and sends the same one again. The
 * hub tells that as a repetition, by which the installation learns that it was heard.
 */
export interface SessionStep {
  readonly installation: string;
  readonly counter: number;
  /** The link that this step continues. */
  readonly prior: string;
  /** 32 hexadecimal digits. */
  readonly nonce: string;
}

/** Where the chain of sessions stands. */
export interface SessionChain {
  readonly counter: number;
  readonly link: string;
}

/** Where the chain of an installation begins that enrolled with this public key. */
export function firstLink(installation: string, publicKey: string): SessionChain {
  return { counter: 0, link: digest(`lockstep-enrolled/1\n${installation}\n${publicKey}`) };
}

export function nextLink({ counter, prior, nonce }: Omit<SessionStep, "installation">): SessionChain {
  return { counter, link: digest(`lockstep-link/1\n${prior}\n${counter}\n${nonce}`) };
}

export async function signStep(step: SessionStep, signer: Signer): Promise<string> {
  return Buffer.from(await signer.sign(stepBytes(step))).toString("hex");
}

export function stepHolds(step: SessionStep, publicKey: string, signature: string): boolean {
  return holds({ public: publicKey }, stepBytes(step), signature);
}

/** Shows that whoever enrols has the private half of the key that it names, and binds it to the secret. */
export async function signEnrolment(installation: string, secret: string, signer: Signer): Promise<string> {
  const bytes = enrolmentBytes(installation, signer.key.public, secret);
  return Buffer.from(await signer.sign(bytes)).toString("hex");
}

export function enrolmentHolds(
  installation: string,
  secret: string,
  publicKey: string,
  signature: string,
): boolean {
  return holds({ public: publicKey }, enrolmentBytes(installation, publicKey, secret), signature);
}

export type StepVerdict =
  | { readonly kind: "next"; readonly chain: SessionChain }
  /** The step that was taken last, once more: its answer got lost. */
  | { readonly kind: "repeated" }
  /** Of another chain than the one that the hub knows: a copy of the key, a replay, or an installation that was restored. */
  | { readonly kind: "diverged"; readonly expected: number };

/**
 * Judges a step whose signature holds. `anew`: history was begun anew by the root keys since, so a hub that was restored
 * from a backup takes the first step that it sees as its new beginning.
 */
export function judgeStep(known: SessionChain, step: SessionStep, anew: boolean): StepVerdict {
  const chain = nextLink(step);
  if (step.counter === known.counter && chain.link === known.link) return { kind: "repeated" };
  if (step.counter === known.counter + 1 && step.prior === known.link) return { kind: "next", chain };
  if (anew && step.counter > known.counter) return { kind: "next", chain };
  return { kind: "diverged", expected: known.counter + 1 };
}

function stepBytes({ installation, counter, prior, nonce }: SessionStep): Uint8Array {
  return Buffer.from(`lockstep-session/1\n${installation}\n${counter}\n${prior}\n${nonce}\n`);
}

function enrolmentBytes(installation: string, publicKey: string, secret: string): Uint8Array {
  return Buffer.from(`lockstep-enrolment/1\n${installation}\n${publicKey}\n${digest(secret)}\n`);
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

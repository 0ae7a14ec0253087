import { randomBytes } from "node:crypto";
import { closeSync, lstatSync, mkdirSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { HubClient, InstallationClient } from "@lockstep/client";
import { type Clock, realDisk, systemClock, systemErrorCode } from "@lockstep/platform";
import { isLockstepError, LockstepError, type SessionGrant } from "@lockstep/protocol/wire";
import {
  firstLink,
  MetadataStore,
  makeSecret,
  nextLink,
  type Signer,
  signEnrolment,
  signerOf,
  signStep,
} from "@lockstep/trust";
import type { InstallationPaths } from "./layout.ts";

/**
 * Who this installation is: a key pair of its own in its private directory, readable for its user alone. The hub noted the
 * public half when the installation enrolled by a secret that is good once (A26).
 *
 * The key begins sessions, each good for an hour, and a session is what requests carry. The state of the chain is durable
 * before a step is sent, so whatever dies, the installation never shows two different steps of one number: it would look like
 * a copy of itself. For the same reason one process at a time begins a session.
 */
interface Identity {
  readonly format: "lockstep-identity/1";
  readonly installation: string;
  /** PKCS#8, base64. */
  readonly secret: string;
  readonly counter: number;
  readonly link: string;
  /** The nonce of a step that was sent and not answered yet. */
  readonly pending: string | null;
}

interface KeptSession extends SessionGrant {
  readonly hub: string;
}

export interface IdentityHub {
  readonly url: string;
  readonly caFile: string | null;
}

const REQUEST_MS = 20_000;
/** A session that ends sooner than this is not begun to be used. */
const LEFT_MS_MIN = 60_000;
const LOCK_MS = 60_000;
const LOCK_WAIT_MS = 30_000;
const LOCK_POLL_MS = 50;
/** Answers that got lost one after another, each of which costs a step. */
const STEPS_MAX = 3;

function storeOf(paths: InstallationPaths): MetadataStore {
  return new MetadataStore(realDisk, paths.identity);
}

function readIdentity(store: MetadataStore, name: "identity" | "candidate" = "identity"): Identity | null {
  const bytes = store.readRecord(name);
  if (bytes === null) return null;
  try {
    const value = JSON.parse(Buffer.from(bytes).toString("utf8")) as Identity;
    if (value.format === "lockstep-identity/1" && typeof value.installation === "string") return value;
  } catch {
    // Told below.
  }
  throw new LockstepError("TRUST_DAMAGED", "the identity of this installation cannot be read any more", {
    expected: "the record as it was written",
    found: "something else in .lockstep/identity/identity",
    hint: "Remove it, let the hub forget the former one (lockstep fleet forget ID), and enrol anew.",
  });
}

async function writeIdentity(
  store: MetadataStore,
  identity: Identity,
  name: "identity" | "candidate" = "identity",
): Promise<void> {
  await store.writeRecord(name, Buffer.from(`${JSON.stringify(identity)}\n`));
}

/** What others may know of the identity; null: there is none. Throws TRUST_DAMAGED. */
export function showIdentity(
  paths: InstallationPaths,
): { readonly installation: string; readonly public: string; readonly sessions: number } | null {
  const identity = readIdentity(storeOf(paths));
  if (identity === null) return null;
  const { installation, counter } = identity;
  return { installation, public: signerFor(identity).key.public, sessions: counter };
}

/**
 * Enrols by a secret. The key is made before, and durable, beside the one that there may be: doing it again after a lost answer
 * comes to the same, and a refusal leaves everything as it was. Returns the id under which it enrolled. Throws ENROLMENT_REFUSED and what a hub call throws.
 */
export async function enrol(
  paths: InstallationPaths,
  hub: IdentityHub,
  secret: string,
  installation: string,
): Promise<string> {
  return await withIdentityLock(paths, systemClock, async () => {
    const store = storeOf(paths);
    await store.makeReady();
    const present = readIdentity(store);
    let candidate = readIdentity(store, "candidate");
    const isNew = candidate?.installation !== installation || candidate.secret === present?.secret;
    if (candidate === null || isNew) {
      const bytes = makeSecret();
      candidate = {
        format: "lockstep-identity/1",
        installation,
        secret: Buffer.from(bytes).toString("base64"),
        ...firstLink(installation, signerOf(bytes).key.public),
        pending: null,
      };
      await writeIdentity(store, candidate, "candidate");
    }
    const signer = signerFor(candidate);
    const signature = await signEnrolment(installation, secret, signer);
    try {
      await withClient(hub, async (client) => {
        const request = { secret, public: signer.key.public, signature };
        await client.enrol(installation, request, { signal: AbortSignal.timeout(REQUEST_MS) });
      });
    } catch (error) {
      if (isNew && isSurelyNotNoted(error)) rmSync(join(paths.identity, "candidate"), { force: true });
      throw error;
    }
    await writeIdentity(store, candidate);
    return installation;
  });
}

/** Connections that did not come about: nothing of the request left this machine. */
const NEVER_CONNECTED: ReadonlySet<unknown> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);

/**
 * Whether the hub cannot have noted the key for which enrolment failed so. Where an answer may have got lost, the key has to be
 * kept: the secret is used up then, and the next try with this key comes to the same.
 */
function isSurelyNotNoted(error: unknown): boolean {
  if (isLockstepError(error, "HUB_UNREACHABLE")) return NEVER_CONNECTED.has(error.found);
  return isLockstepError(error, "ENROLMENT_REFUSED", "HUB_CERTIFICATE_REFUSED", "USAGE");
}

/**
 * The id that a directory will have as an installation: that of an enrolment which was begun there, or null.
 */
export function begunAs(paths: InstallationPaths): string | null {
  const store = storeOf(paths);
  return (readIdentity(store) ?? readIdentity(store, "candidate"))?.installation ?? null;
}

/**
 * A session with the hub: the one that is kept, or a new one where the hub `refused` that. Null where this installation did not enrol. Throws
 * INSTALLATION_NOT_ENROLLED, INSTALLATION_DIVERGED and what a hub call throws.
 */
export async function obtainSession(
  paths: InstallationPaths,
  hub: IdentityHub,
  refused: string | null,
  clock: Clock = systemClock,
): Promise<string | null> {
  const before = storeOf(paths);
  if (readIdentity(before) === null) return null;
  const present = keptSession(before, hub, clock);
  if (present !== null && present.token !== refused) return present.token;
  return await withIdentityLock(paths, clock, async () => {
    const store = storeOf(paths);
    await store.makeReady();
    // Somebody else began one meanwhile.
    const kept = keptSession(store, hub, clock);
    if (kept !== null && kept.token !== refused) return kept.token;
    const grant = await beginSession(store, hub);
    await store.writeRecord("session", Buffer.from(`${JSON.stringify({ ...grant, hub: hub.url })}\n`));
    return grant.token;
  });
}

function keptSession(store: MetadataStore, hub: IdentityHub, clock: Clock): KeptSession | null {
  const bytes = store.readRecord("session");
  if (bytes === null) return null;
  try {
    const session = JSON.parse(Buffer.from(bytes).toString("utf8")) as KeptSession;
    const usable =
      typeof session.token === "string" &&
      session.hub === hub.url &&
      session.expiresAt - clock.now() > LEFT_MS_MIN;
    return usable ? session : null;
  } catch {
    return null;
  }
}

async function beginSession(store: MetadataStore, hub: IdentityHub): Promise<SessionGrant> {
  return await withClient(hub, async (client) => {
    for (let tries = 1; ; tries++) {
      const identity = readIdentity(store);
      if (identity === null) throw new TypeError("the identity went away");
      const nonce = identity.pending ?? randomBytes(16).toString("hex");
      if (identity.pending === null) await writeIdentity(store, { ...identity, pending: nonce });
      const { installation, link: prior } = identity;
      const step = { installation, counter: identity.counter + 1, prior, nonce };
      const taken = { ...identity, ...nextLink(step), pending: null };
      const signature = await signStep(step, signerFor(identity));
      const { counter } = step;
      try {
        const request = { counter, prior, nonce, signature };
        const grant = await client.beginSession(installation, request, {
          signal: AbortSignal.timeout(REQUEST_MS),
        });
        await writeIdentity(store, taken);
        return grant;
      } catch (error) {
        if (!isLockstepError(error, "SESSION_REPEATED") || tries >= STEPS_MAX) throw error;
        // The hub took the step, and its answer got lost.
        await writeIdentity(store, taken);
      }
    }
  });
}

async function withClient<T>(hub: IdentityHub, use: (client: InstallationClient) => Promise<T>): Promise<T> {
  const client = new HubClient({ url: hub.url, caFile: hub.caFile });
  try {
    return await use(new InstallationClient(client));
  } finally {
    await client.close();
  }
}

function signerFor(identity: Identity): Signer {
  return signerOf(Buffer.from(identity.secret, "base64"));
}

/** One process at a time. A lock that a killed process left counts for a minute: no step takes longer. */
async function withIdentityLock<T>(
  paths: InstallationPaths,
  clock: Clock,
  work: () => Promise<T>,
): Promise<T> {
  mkdirSync(paths.identity, { recursive: true, mode: 0o700 });
  const lock = join(paths.identity, "lock");
  const until = clock.monotonic() + LOCK_WAIT_MS;
  while (!take(lock)) {
    if (clock.monotonic() >= until)
      throw new LockstepError(
        "INSTALLATION_LOCKED",
        "another process uses the identity of this installation",
        {
          found: lock,
          hint: "Try again; if no other lockstep runs there, remove the file.",
        },
      );
    await clock.sleep(LOCK_POLL_MS);
  }
  try {
    return await work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function take(lock: string): boolean {
  try {
    closeSync(openSync(lock, "wx", 0o600));
    return true;
  } catch (error) {
    if (systemErrorCode(error) !== "EEXIST") throw error;
  }
  const found = lstatSync(lock, { throwIfNoEntry: false });
  if (found !== undefined && Math.abs(Date.now() - found.mtimeMs) > LOCK_MS) rmSync(lock, { force: true });
  return false;
}

import { createHash } from "node:crypto";
import { type HubClient, InstallationClient, openDocument } from "@lockstep/client";
import { LockstepError } from "@lockstep/protocol/wire";
import {
  type Destination,
  decideOrder,
  type KeptMetadata,
  mayBeOrdered,
  orderKeysOf,
  readOrdered,
  readOrderMemory,
  rolesOf,
  type SignedRevision,
  type TrustClient,
} from "@lockstep/trust";

/**
 * Which of the signed revisions this installation goes to: the newest, unless there is an order for it (order.ts of trust).
 *
 * Whether there is one to ask for stands in the timestamp that was verified a moment ago (ordered.ts of trust); where it does
 * not, the hub itself is asked. An order names signed targets, which are verified here like any others: by the release keys of
 * the root that is in force now. What was decided is durable before anybody acts on it.
 */
export interface Subject {
  readonly installation: string;
  readonly installed: number | null;
}

export interface Ordered extends SignedRevision {
  readonly bytes: Uint8Array;
  /** For update.log: which order and which permit lead there. */
  readonly by: Readonly<Record<string, string | number>>;
}

const TARGETS_BYTES_MAX = 5_000_000;

/** Null: the newest. Throws ORDER_REFUSED, ORDER_REPLAYED, ORDER_EXPIRED, DOWNGRADE_REFUSED, TRUST_*. */
export async function followOrder(
  client: HubClient,
  store: KeptMetadata,
  trust: TrustClient,
  newest: SignedRevision & { readonly bytes: Uint8Array },
  { installation, installed }: Subject,
  signal: AbortSignal | undefined,
): Promise<Ordered | null> {
  const memory = readOrderMemory(store.readRecord("orders"));
  // Whoever stays by an order hears of its renewal and of the next one by asking.
  const asks =
    (memory?.revision ?? null) !== null ||
    mayBeOrdered(readOrdered(trust.timestamp ?? {}), installation, trust.referenceMs);
  const answer = asks ? await new InstallationClient(client).order(installation, { signal }) : null;
  const text = answer?.order ?? null;
  const decision = decideOrder({
    installation,
    installed,
    newest: newest.document.number,
    order: typeof text === "string" ? text : null,
    permit: typeof answer?.permit === "string" ? answer.permit : null,
    memory,
    orderKeys: orderKeysOf(trust.root),
    releaseKeys: rolesOf(trust.root).targets,
    nowMs: trust.referenceMs,
  });
  const { go, order, permit } = decision;
  const reached = go === null ? null : await signedTargets(client, trust, newest, go, signal);
  if (decision.memory !== null && JSON.stringify(decision.memory) !== JSON.stringify(memory))
    await store.writeRecord("orders", Buffer.from(JSON.stringify(decision.memory)));
  if (reached === null || order === null) return null;
  const by = {
    order: order.counter,
    ...(text === null ? {} : { orderSignature: firstSignature(text) }),
    ...(permit === null
      ? {}
      : { permit: permit.serial, permitSignature: firstSignature(answer?.permit ?? "") }),
  };
  return { ...reached, by };
}

async function signedTargets(
  client: HubClient,
  trust: TrustClient,
  newest: SignedRevision & { readonly bytes: Uint8Array },
  go: Destination,
  signal: AbortSignal | undefined,
): Promise<SignedRevision & { readonly bytes: Uint8Array }> {
  const bytes =
    digestOf(newest.bytes) === go.targets.sha256
      ? newest.bytes
      : await fetchTargets(client, `${go.targets.version}.targets.json`, signal);
  if (digestOf(bytes) !== go.targets.sha256)
    throw refuse(`other targets than version ${go.targets.version} as it was ordered`);
  const revision = trust.readRevision(bytes);
  if (revision.document.number !== go.revision || revision.document.digest !== go.digest)
    throw refuse(`targets of software revision ${revision.document.number}`);
  return { ...revision, bytes };
}

async function fetchTargets(
  client: HubClient,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const answer = await openDocument(client.connection, `/v1/trust/${name}`, 0, signal);
  if (answer === null)
    throw new LockstepError("TRUST_UNAVAILABLE", `the hub does not offer ${name}, which its order names`, {
      expected: name,
      found: "nothing under that name",
      hint: "Nothing was changed. Give the order once more: lockstep fleet order ID REVISION.",
    });
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of answer.chunks) {
    length += chunk.length;
    if (length > TARGETS_BYTES_MAX) throw refuse(`more than ${TARGETS_BYTES_MAX} bytes of targets`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function refuse(found: string): LockstepError {
  return new LockstepError(
    "ORDER_REFUSED",
    "the order names something that the release keys did not sign so",
    {
      expected: "the signed targets that the order names",
      found,
      hint: "Nothing was changed. Somebody between here and the hub altered it.",
    },
  );
}

/** Which signature it was, shortened: enough to find it again. */
function firstSignature(text: string): string {
  return /"signature":"([0-9a-f]{16})/.exec(text)?.[1] ?? "none";
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

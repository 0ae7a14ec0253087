import type { HubClient } from "@lockstep/client";
import { LockstepError } from "@lockstep/protocol/wire";
import { addSignatures, encodeMetadata, readTargets } from "@lockstep/trust";
import { type KeyArguments, openKeys } from "./key-files.ts";
import type { Waiting } from "./waiting.ts";

/** Signs what was shown, and nothing else. Throws KEY_MISSING, SIGNATURE_REFUSED. */
export async function signWaiting(hub: HubClient, waiting: Waiting, keys: KeyArguments) {
  const signers = await openKeys(keys, "targets");
  if (signers.length === 0)
    throw new LockstepError("KEY_MISSING", "there is no release key to sign with", {
      expected: "a key file of the role targets",
      found: keys.keys ?? "no directory was named",
      hint: "Name the directory with the release key: --keys DIR.",
    });
  const metadata = readTargets(Buffer.from(waiting.text));
  await addSignatures(metadata, signers);
  return await hub.putSignatures(Buffer.from(encodeMetadata(metadata)).toString("utf8"));
}

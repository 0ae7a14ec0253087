import { readFile } from "node:fs/promises";
import { LockstepError } from "@lockstep/protocol/wire";

/** Reads the cluster's key: 32 bytes as one line of 64 hexadecimal digits. Throws FILE_ACCESS_FAILED, NODE_CONFIG. */
export async function readClusterKey(file: string): Promise<Buffer> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `the cluster's key ${file} cannot be read`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "Copy it from another node of the cluster, readable for the account of the daemon alone.",
      cause,
    });
  }
  const line = text.trim();
  if (!/^[0-9a-f]{64}$/.test(line))
    throw new LockstepError("NODE_CONFIG", `${file} holds no key of a cluster`, {
      expected: "64 hexadecimal digits in lower case",
      found: `${line.length} characters`,
      hint: "`lockstep cluster init` makes one; copy it from another node as it is.",
    });
  return Buffer.from(line, "hex");
}

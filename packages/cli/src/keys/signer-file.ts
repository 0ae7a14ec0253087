import { createPublicKey, randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { printable, systemErrorCode } from "@lockstep/platform";
import { externalSigner, formatSignerFile, publicKey } from "@lockstep/trust";
import { usage } from "../options.ts";
import { Output } from "../screen/output.ts";

/** Writes a signer file, once its command has shown that it signs with that key. Throws USAGE, SIGNER_FAILED. */
export async function makeSignerFile(
  file: string,
  command: readonly string[],
  options: { readonly role: string; readonly publicKey: string; readonly json?: boolean },
): Promise<void> {
  const { role } = options;
  if (role !== "root" && role !== "targets")
    throw usage("a key that is not on the hub signs as root or as targets", "root or targets", role);
  const key = publicKey(await readPublicKey(options.publicKey));
  const output = new Output(options);
  output.note(
    `Waiting for ${printable(command[0] ?? "")} to sign something for a try, five minutes at most: it may ask for a PIN here, or the key may want to be touched.`,
  );
  await externalSigner({ key, command }).sign(randomBytes(32));
  try {
    await writeFile(file, formatSignerFile({ role, key, command }), { mode: 0o600, flag: "wx" });
  } catch (error) {
    throw usage(`${file} cannot be written`, "a new file", systemErrorCode(error) ?? "an error");
  }
  output.document({ file, role, keyId: key.id, public: key.public });
  output.line(`${role} key ${key.id.slice(0, 12)}: ${file}`);
}

async function readPublicKey(path: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    const pem = bytes.includes("-----BEGIN");
    const key = createPublicKey(pem ? bytes : { key: bytes, format: "der", type: "spki" });
    const { crv, x } = key.export({ format: "jwk" });
    if (crv === "Ed25519" && x !== undefined) return Buffer.from(x, "base64url").toString("hex");
  } catch (error) {
    throw usage(
      `${path} holds no public key`,
      "an ed25519 public key, PEM or DER",
      error instanceof Error ? error.message : String(error),
    );
  }
  throw usage(`${path} holds another kind of key`, "an ed25519 public key", "another kind");
}

import { LockstepError } from "@lockstep/protocol/wire";

/**
 * The certificates by which a hub is believed (`--ca-file`). A file without any would leave nobody to believe, and one that is
 * cut off only some: both would be told much later, as a certificate of the hub that is refused, and the hub is not at fault.
 * So the file is looked at before anything is sent.
 */
const BEGIN = /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/g;
const WHOLE = /-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----(?:(?!-----BEGIN)[\s\S])*?-----END \1-----/g;
const EXPECTED = "certificates in PEM (-----BEGIN CERTIFICATE-----)";

/**
 * Reads a file of certificates in PEM and returns its text. Throws USAGE, with the path, where it cannot be read, has no
 * certificate, or has one that is cut off or none at all in truth.
 */
export function readAuthorities(path: string): string {
  const { readFileSync } = process.getBuiltinModule("node:fs");
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw refuse(path, "cannot be read", cause instanceof Error ? cause.message : String(cause), cause);
  }
  const begun = text.match(BEGIN)?.length ?? 0;
  if (begun === 0) throw refuse(path, "holds no certificate", whatElse(text));
  const certificates = text.match(WHOLE) ?? [];
  if (certificates.length < begun)
    throw refuse(path, "is cut off", `${certificates.length} whole of ${begun} that begin in it`);
  const { X509Certificate } = process.getBuiltinModule("node:crypto");
  for (const [index, certificate] of certificates.entries()) {
    try {
      new X509Certificate(certificate);
    } catch (cause) {
      throw refuse(path, "holds something else in the place of a certificate", `number ${index + 1}`, cause);
    }
  }
  return text;
}

/** What there is instead: files that are easily taken for each other. */
function whatElse(text: string): string {
  const other = /-----BEGIN ([A-Z0-9 ]{1,40})-----/.exec(text)?.[1];
  if (other !== undefined) return other.toLowerCase();
  if (text.trim() === "") return "an empty file";
  // Where bytes are no UTF-8, reading them as text leaves this.
  return text.includes("\ufffd") || text.includes("\0") ? "binary data" : "other text";
}

function refuse(path: string, problem: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("USAGE", `the certificate file ${path} ${problem}`, {
    expected: EXPECTED,
    found,
    hint:
      found === "binary data"
        ? `Convert it, if it is a certificate in DER: openssl x509 -inform der -in ${path} -out FILE.`
        : "Name the file with the certificate of the authority that issued the hub's (--ca-file, LOCKSTEP_CA, lockstep configure DIR --set-ca-file).",
    ...(cause === undefined ? {} : { cause }),
  });
}

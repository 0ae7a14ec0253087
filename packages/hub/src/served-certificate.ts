import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { type CertificateLife, judgeCertificate } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";

/**
 * The certificate with which this hub serves. Once it is out of its time no installation reaches the hub any more, also those
 * that would have told; so it is said ahead, in the log and to whoever asks for the hub's status. It is read once, when the
 * hub starts: a renewed one counts from the next start on.
 */
export interface ServedCertificate extends CertificateLife {
  /** Whose certificate it is; of several in the file the one that ends first. */
  readonly subject: string;
}

export interface ServedTls {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly certificate: ServedCertificate;
}

const PEM = /-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----[\s\S]+?-----END \1-----/g;

/** Reads certificate and key in PEM. Throws CONFIG_INVALID, with the file, where one is not what it should be or they do not belong together. */
export async function readServedTls(files: {
  readonly certFile: string;
  readonly keyFile: string;
}): Promise<ServedTls> {
  const [cert, key] = [await readNamed(files.certFile), await readNamed(files.keyFile)];
  const certificates = await parsed(files.certFile, "holds no certificate", () =>
    (cert.toString("latin1").match(PEM) ?? []).map((text) => new X509Certificate(text)),
  );
  const [own] = certificates;
  if (own === undefined) throw refuse(files.certFile, "holds no certificate", "no certificate in PEM");
  const secret = await parsed(files.keyFile, "holds no private key", () => createPrivateKey(key));
  if (!own.checkPrivateKey(secret))
    throw refuse(files.keyFile, `is not the key of ${files.certFile}`, "the key of another certificate");
  await parsed(files.certFile, "cannot be served", () => createSecureContext({ cert, key }));
  // Whoever trusts an authority has its certificate and asks nobody for it.
  const sent = certificates.filter((each) => each === own || each.subject !== each.issuer);
  const lives = sent.map((each) => ({
    subject: each.subjectAltName ?? each.subject,
    notBefore: each.validFromDate.getTime(),
    expiresAt: each.validToDate.getTime(),
  }));
  const certificate = lives.reduce((first, each) => (each.expiresAt < first.expiresAt ? each : first));
  return { cert, key, certificate };
}

async function readNamed(path: string): Promise<Buffer> {
  return await readFile(path).catch((cause: unknown) => {
    throw refuse(path, "cannot be read", cause instanceof Error ? cause.message : String(cause), cause);
  });
}

async function parsed<T>(path: string, problem: string, parse: () => T): Promise<T> {
  try {
    return parse();
  } catch (cause) {
    throw refuse(path, problem, cause instanceof Error ? cause.message : String(cause), cause);
  }
}

function refuse(path: string, problem: string, found: string, cause?: unknown): LockstepError {
  return new LockstepError("CONFIG_INVALID", `the TLS file ${path} ${problem}`, {
    expected: "a certificate and its private key in PEM",
    found,
    hint: "Name readable files in PEM by --tls-cert and --tls-key.",
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Whole seconds until a certificate ends; negative when it has. */
export function secondsLeft({ expiresAt }: CertificateLife, now: number): number {
  return Math.floor((expiresAt - now) / 1000);
}

/** Says in the log what there is to say of the certificate at this time; nothing where it is good. */
export function tellCertificate(certificate: ServedCertificate, now: number, log: Logger): void {
  const { subject, notBefore, expiresAt } = certificate;
  const fields = {
    subject,
    notBefore: new Date(notBefore).toISOString(),
    expiresAt: new Date(expiresAt).toISOString(),
    secondsLeft: secondsLeft(certificate, now),
  };
  const judged = judgeCertificate(certificate, now);
  if (judged === "soon")
    log.warn("the hub's certificate expires soon: renew it, then start the hub again", fields);
  if (judged === "expired")
    log.error("the hub's certificate has expired: no installation trusts it any more", fields);
  if (judged === "not-yet")
    log.error("the hub's certificate is not good yet: look at this machine's clock", fields);
}

const LOOK_MS = 6 * 3_600_000;

/** Looks at the certificate now and every six hours until `stopping`. */
export async function watchCertificate(
  certificate: ServedCertificate,
  { clock, log, stopping }: { readonly clock: Clock; readonly log: Logger; readonly stopping: AbortSignal },
): Promise<void> {
  while (!stopping.aborted) {
    tellCertificate(certificate, clock.now(), log);
    await clock.sleep(LOOK_MS, stopping);
  }
}

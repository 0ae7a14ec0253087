import { InstallationClient } from "@lockstep/client";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { remarkOnCertificate, remarksOn, remarksOnInstallations } from "../keys/remarks.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { formatBytes, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";

/** `lockstep hub`: runs the hub; `lockstep hub status` asks one. */
export function define(command: Command): void {
  command
    .option("--data <directory>", "where the hub keeps its database, token and cache")
    .option("--database <url>", "a PostgreSQL of your own: postgres://USER@HOST/NAME")
    .option("--listen <host:port>", "where to listen (else 127.0.0.1:8700; port 0: any free one)")
    .option("--dev", "on this machine alone, without credentials")
    .option("--tls-cert <file>", "certificate in PEM, to serve HTTPS")
    .option("--tls-key <file>", "its private key in PEM")
    .option("--migrate", "update the schema of an older hub's database at the start")
    .option("--log-level <level>", "debug, info, warn or error")
    .action(async (options) => {
      const { serveHub } = await import("../hub-process.ts");
      await serveHub(options);
    });
  const status = command
    .command("status")
    .description("version, database, software revision and sizes of a hub");
  addJsonOption(addHubOptions(status)).action(showStatus);
}

async function showStatus(options: HubArguments & { readonly json?: boolean }): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const [status, signing] = [await hub.status(), await orNull(hub.signingStatus())];
    const enrolment = await orNull(new InstallationClient(hub).status());
    output.document({ ...status, signing, enrolment });
    const lines: [string, string][] = [
      ["hub", hub.url],
      ["version", status.version],
      ["running since", formatUtc(status.startedAt)],
      ["database", `${status.database}, schema ${status.schema}`],
      ["software revision", String(status.revision)],
      ["files", String(status.files)],
      ["contents", `${status.contents}, ${formatBytes(status.storedBytes)} stored`],
      ...(status.certificate
        ? [["certificate", `good until ${formatUtc(status.certificate.expiresAt)}`] as [string, string]]
        : []),
      ["installations", `${enrolment?.installations ?? 0}, ${enrolment?.enrolled ?? 0} enrolled`],
    ];
    for (const [name, value] of lines) output.line(`${name.padEnd(18)} ${value}`);
    if (status.development) output.warn("this hub runs with --dev: it asks nobody for credentials");
    const certificate = remarkOnCertificate(status);
    if (certificate !== null) output.warn(certificate);
    for (const remark of signing === null ? [] : remarksOn(signing)) output.warn(remark);
    for (const remark of enrolment === null ? [] : remarksOnInstallations(enrolment)) output.warn(remark);
    for (const { queue, machine, former, at } of status.rivals ?? [])
      output.warn(
        `two services have the queue ${queue}: the one on ${machine} took it from the one on ${former} at ${formatUtc(at)}. Give each its own Queue, or end one of them`,
      );
    for (const step of status.setup) output.warn(`lockstep setup has something to do: ${step}`);
  });
}

/** Null while the database still has the schema of an older hub. */
async function orNull<T>(asked: Promise<T>): Promise<T | null> {
  try {
    return await asked;
  } catch (error) {
    if (isLockstepError(error, "DATABASE_SCHEMA_OLDER")) return null;
    throw error;
  }
}

import type { Command } from "commander";
import { accessOf, addInstallationArguments, type InstallationArguments } from "../installation.ts";
import { Output } from "../screen/output.ts";
import { readEnrolmentSecret } from "../secret-file.ts";

interface EnrolArguments extends InstallationArguments {
  readonly secretFile?: string;
}

/** `lockstep enrol DIR`: has the hub note the key of an installation that is there already. */
export function define(command: Command): void {
  addInstallationArguments(command)
    .option("--secret-file <file>", "the secret of lockstep fleet enrol (else LOCKSTEP_ENROLMENT)")
    .action(async (directory: string, options: EnrolArguments) => {
      const { enrolInstallation, showTrust } = await import("@lockstep/updater");
      const secret = await readEnrolmentSecret(options.secretFile, true);
      const installation = await enrolInstallation(directory, accessOf(options), secret);
      const output = new Output(options);
      const key = (await showTrust(directory)).identity?.public ?? "";
      output.document({ directory, installation, public: key });
      output.line(`enrolled: installation ${installation}, key ${key}`);
    });
}

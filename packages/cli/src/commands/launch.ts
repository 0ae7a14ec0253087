import { printable, signalExitStatus } from "@lockstep/platform";
import type { Command } from "commander";
import { Finished } from "../failure.ts";
import { givenHubUrl, type HubArguments } from "../hub-address.ts";
import { addHubOptions, usage } from "../options.ts";
import { askYesNo, canAsk } from "../screen/question.ts";

/** `lockstep launch DIR -- PROGRAM ARGS`: check, update, start. Its exit status is the program's. */
export function define(command: Command): void {
  addHubOptions(
    command.argument("<directory>", "the installation").argument("<program...>", "what to start, after --"),
  )
    .passThroughOptions()
    .action(async (directory: string, words: readonly string[], options: HubArguments) => {
      throw new Finished(await runLaunch(directory, words, options));
    });
}

async function runLaunch(
  directory: string,
  words: readonly string[],
  options: HubArguments,
): Promise<number> {
  const { launch } = await import("@lockstep/updater");
  // The parser leaves the -- in, because everything behind it is the program's.
  const [program = "", ...args] = words[0] === "--" ? words.slice(1) : words;
  if (program === "") throw usage("there is no program to start", "lockstep launch DIR -- PROGRAM ARGS");
  const { status, signal } = await launch(directory, {
    access: {
      url: givenHubUrl(options) ?? undefined,
      caFile: options.caFile,
      tokenFile: options.tokenFile,
      environment: process.env,
    },
    program,
    args,
    askPostpone: canAsk()
      ? async ({ to }) =>
          !(await askYesNo(`Software revision ${to} is there. Update now, before the program starts?`))
      : null,
    // Standard output belongs to the program.
    say: (message) => process.stderr.write(`lockstep: ${printable(message)}\n`),
  });
  return signal === null ? (status ?? 1) : signalExitStatus(signal);
}

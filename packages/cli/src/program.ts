import { LockstepError } from "@lockstep/protocol/wire";
import { Command, CommanderError } from "commander";
import { Finished } from "./failure.ts";

/** What a command's file exports: it puts its arguments, options and action on the command that it is given. */
export type DefineCommand = (command: Command) => void;

interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<{ readonly define: DefineCommand }>;
}

/** All commands, in the order of the help. Only the one that is called gets loaded. */
const COMMANDS: readonly CommandEntry[] = [
  { name: "hub", summary: "run the hub, or show its status", load: () => import("./commands/hub.ts") },
  {
    name: "relay",
    summary: "a cache for the installations of a site, between them and the hub",
    load: () => import("./commands/relay.ts"),
  },
  {
    name: "bundle",
    summary: "carry signed releases on a disk: export, import",
    load: () => import("./commands/bundle.ts"),
  },
  {
    name: "setup",
    summary: "first set-up and later database updates",
    load: () => import("./commands/setup.ts"),
  },
  { name: "load", summary: "load a release into the repository", load: () => import("./commands/load.ts") },
  {
    name: "files",
    summary: "look at stored files, export, assign, remove",
    load: () => import("./commands/files.ts"),
  },
  {
    name: "revision",
    summary: "software revisions: list, show, diff, sign, revert",
    load: () => import("./commands/revision.ts"),
  },
  {
    name: "keys",
    summary: "who can sign releases: make, list, rotate, recover",
    load: () => import("./commands/keys.ts"),
  },
  {
    name: "roles",
    summary: "machine roles and installation packages",
    load: () => import("./commands/roles.ts"),
  },
  {
    name: "settings",
    summary: "configuration parameters of the repository",
    load: () => import("./commands/settings.ts"),
  },
  {
    name: "dbqueue",
    summary: "what the DBQueue Processor has to do, and why it waits",
    load: () => import("./commands/dbqueue.ts"),
  },
  {
    name: "job",
    summary: "processes, templates, schedules and servers of the job service",
    load: () => import("./commands/job.ts"),
  },
  {
    name: "fleet",
    summary: "the installations that the hub knows: enrol, order, permit",
    load: () => import("./commands/fleet.ts"),
  },
  {
    name: "service",
    summary: "the job service of a machine: run, look, configure, register",
    load: () => import("./commands/service.ts"),
  },
  {
    name: "node",
    summary: "the daemon of a cluster's node",
    load: () => import("./commands/node.ts"),
  },
  {
    name: "cluster",
    summary: "a service on a virtual server that survives its node",
    load: () => import("./commands/cluster.ts"),
  },
  {
    name: "install",
    summary: "build an installation from the hub",
    load: () => import("./commands/install.ts"),
  },
  {
    name: "enrol",
    summary: "have the hub note the key of an installation",
    load: () => import("./commands/enrol.ts"),
  },
  {
    name: "check",
    summary: "whether an installation is in step (exit 0) or behind (exit 10)",
    load: () => import("./commands/check.ts"),
  },
  { name: "plan", summary: "what an update would change, and why", load: () => import("./commands/plan.ts") },
  { name: "update", summary: "bring an installation in step", load: () => import("./commands/update.ts") },
  {
    name: "verify",
    summary: "find local damage, and mend it with --repair",
    load: () => import("./commands/verify.ts"),
  },
  { name: "repair", summary: "mend local damage", load: () => import("./commands/repair.ts") },
  {
    name: "rollback",
    summary: "return to the state before the last update",
    load: () => import("./commands/rollback.ts"),
  },
  { name: "log", summary: "what was done to an installation", load: () => import("./commands/log.ts") },
  {
    name: "trust",
    summary: "whose signatures an installation believes",
    load: () => import("./commands/trust.ts"),
  },
  {
    name: "configure",
    summary: "settings of one installation",
    load: () => import("./commands/configure.ts"),
  },
  {
    name: "launch",
    summary: "check, update, then start a program",
    load: () => import("./commands/launch.ts"),
  },
  { name: "agent", summary: "keep installations in step", load: () => import("./commands/agent.ts") },
  {
    name: "doctor",
    summary: "look for what usually is the reason",
    load: () => import("./commands/doctor.ts"),
  },
];

/**
 * Runs one command line. Returns the exit status. Throws LockstepError; USAGE for anything that the command line
 * contract does not know.
 */
export async function runProgram(argv: readonly string[]): Promise<number> {
  const program = new Command("lockstep");
  program
    .description("Keeps every installation of a product in step with one repository.")
    .version(await readVersion(), "-V, --version", "print the version")
    // Else our own --version would swallow that of `load`.
    .enablePositionalOptions()
    .helpOption("-h, --help", "show help")
    .helpCommand("help [command]", "show help for a command")
    .configureHelp({ sortSubcommands: false })
    .addHelpText("after", "\nReference: docs/reference/commands.md");
  // The first word that is not an option names the command; `help X` wants X as well.
  const words = argv.filter((word) => !word.startsWith("-"));
  const wanted = words[0] === "help" ? words[1] : words[0];
  for (const entry of COMMANDS) {
    const command = program.command(entry.name).summary(entry.summary).description(entry.summary);
    if (entry.name === wanted) (await entry.load()).define(command);
  }
  prepare(program);
  try {
    if (argv.length === 0) {
      process.stderr.write(program.helpInformation());
      return 2;
    }
    await program.parseAsync([...argv], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof Finished) return error.status;
    if (error instanceof CommanderError) return endOfParsing(error, argv);
    throw error;
  }
}

/** Throws instead of exiting, in every subcommand as well; messages are told by reportFailure alone. */
function prepare(command: Command): void {
  command.exitOverride().showSuggestionAfterError(true);
  command.configureOutput({ outputError: () => {} });
  for (const each of command.commands) prepare(each);
}

function endOfParsing(error: CommanderError, argv: readonly string[]): number {
  if (error.exitCode === 0) return 0;
  if (error.code === "commander.help") return 2;
  const message = error.message.replace(/^error: /, "").replace(/\n\((.*)\)$/, " ($1)");
  const command = COMMANDS.filter((entry) => entry.name === argv[0]).map((entry) => entry.name);
  throw new LockstepError("USAGE", message, {
    hint: `lockstep ${[...command, "--help"].join(" ")} shows what is possible.`,
  });
}

async function readVersion(): Promise<string> {
  const { PRODUCT_VERSION } = await import("./version.ts");
  return PRODUCT_VERSION;
}

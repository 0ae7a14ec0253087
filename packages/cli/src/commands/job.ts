import type { Command } from "commander";
import { addHubOptions, addJsonOption, collect, usage, wholeNumber } from "../options.ts";

const number = (name: string) => wholeNumber(name, 1, Number.MAX_SAFE_INTEGER);
const SET = "name=value gives a text, name:=JSON any value; repeatable";

/** `lockstep job`: processes, templates, schedules and servers of the job service. */
export function define(command: Command): void {
  defineProcesses(command);
  defineDecisions(command);
  defineTemplates(command);
  defineSchedules(command);
  defineServers(command);
}

function defineProcesses(command: Command): void {
  const start = command
    .command("start")
    .description("start a process of a stored template, or of one in a file");
  addJsonOption(addHubOptions(start.argument("<template>", "its name, or a file (.toml, .json, or ./NAME)")))
    .option("--set <name=value>", SET, collect)
    .option(
      "--set-file <name=file>",
      "the value stands in a file (- for standard input); repeatable",
      collect,
    )
    .option("--priority <n>", "1 to 15, 15 first", wholeNumber("--priority", 1, 15))
    .option("--at <time>", "not before, as 2026-01-31T02:30Z")
    .option("--key <text>", "start one process for all calls with this text")
    .option("--wait", "wait for its end; the exit status says how it ended")
    .option("--quiet", "no progress")
    .action(async (template: string, options) => {
      const { startJob } = await import("../job/start.ts");
      await startJob(template, options);
    });

  const list = command.command("list").description("processes, the newest first");
  addJsonOption(addHubOptions(list))
    .option("--state <state>", "only those that are running, finished, failed, stuck or cancelled")
    .option("--template <name>", "only those of a template")
    .option("--text <text>", "only those with this in name, starter or a step's message")
    .option("--limit <count>", "at most so many (50)", wholeNumber("--limit", 1, 1_000_000))
    .action(async (options) => {
      const { listJobs } = await import("../job/list.ts");
      await listJobs(options);
    });

  const show = command.command("show").description("a process with its steps");
  addJsonOption(addHubOptions(show.argument("<id>", "", number("the id of a process"))))
    .option("--follow", "go on with a line for each change, until the process has ended")
    .option("--runs", "also every try of every step")
    .option("--parameters", "also the parameters")
    .action(async (id: number, options) => {
      const { showJob } = await import("../job/show.ts");
      await showJob(id, options);
    });

  const cancel = command.command("cancel").description("end a process; services stop working on its steps");
  addJsonOption(addHubOptions(cancel.argument("<id>", "", number("the id of a process"))))
    .option("--yes", "do not ask")
    .action(async (id: number, options) => {
      const { cancelJob } = await import("../job/reactivate.ts");
      await cancelJob(id, options);
    });
}

function defineDecisions(command: Command): void {
  const reactivate = command
    .command("reactivate")
    .description("let steps go on that are frozen, missing or over limit");
  addJsonOption(
    addHubOptions(reactivate.argument("[step...]", "numbers of steps; else those that the options name")),
  )
    .requiredOption(
      "--as <how>",
      "step: again; chain: its whole process from the beginning; success or error: as if it had ended so",
    )
    .option("--process <id>", "steps of this process", number("--process"))
    .option("--template <name>", "steps of processes of this template")
    .option("--queue <queue>", "steps of this queue")
    .option("--component <name>", "steps of this component")
    .option("--task <name>", "steps of this task")
    .option("--state <state>", "frozen, missing or over-limit")
    .option("--message <text>", "steps with this in their message")
    .option("--dry-run", "only say which")
    .option("--yes", "do not ask")
    .action(async (steps: readonly string[], options) => {
      const { reactivateSteps } = await import("../job/reactivate.ts");
      await reactivateSteps(steps, options);
    });
}

function defineTemplates(command: Command): void {
  const template = command.command("template").description("stored templates of processes");
  const put = template.command("put").description("check templates and store them");
  addJsonOption(addHubOptions(put.argument("<file...>", "in TOML or JSON"))).action(
    async (files, options) => {
      const { putTemplates } = await import("../job/templates.ts");
      await putTemplates(files, options);
    },
  );
  const list = template.command("list").description("all templates");
  addJsonOption(addHubOptions(list)).action(async (options) => {
    const { listTemplates } = await import("../job/templates.ts");
    await listTemplates(options);
  });
  const show = template.command("show").description("one template, as JSON that `template put` takes again");
  addJsonOption(addHubOptions(show.argument("<name>"))).action(async (name, options) => {
    const { showTemplate } = await import("../job/templates.ts");
    await showTemplate(name, options);
  });
  const remove = template.command("remove").description("remove a template; its processes go on");
  addJsonOption(addHubOptions(remove.argument("<name>"))).action(async (name, options) => {
    const { removeTemplate } = await import("../job/templates.ts");
    await removeTemplate(name, options);
  });
  const check = template.command("check").description("look at files without a hub, and tell every fault");
  addJsonOption(check.argument("<file...>", "in TOML or JSON")).action(async (files, options) => {
    const { checkTemplates } = await import("../job/templates.ts");
    await checkTemplates(files, options);
  });
}

function defineSchedules(command: Command): void {
  const schedule = command.command("schedule").description("processes that start by themselves");
  const put = schedule.command("put").description("store a schedule in place of the one of this name");
  addJsonOption(addHubOptions(put.argument("<name>")))
    .requiredOption("--template <name>", "what to start")
    .requiredOption("--cron <expression>", "five or six fields: '30 2 * * *'")
    .option("--time-zone <name>", "an IANA name such as Europe/Berlin (UTC)")
    .option("--set <name=value>", SET, collect)
    .option(
      "--set-file <name=file>",
      "the value stands in a file (- for standard input); repeatable",
      collect,
    )
    .option("--catch-up", "start one process for times that were missed while no hub ran")
    .option("--skip-while-running", "start none while the last one has not ended")
    .option("--disabled", "store it switched off")
    .action(async (name: string, options) => {
      const { putSchedule } = await import("../job/schedules.ts");
      await putSchedule(name, options);
    });
  const list = schedule.command("list").description("all schedules with their next times");
  addJsonOption(addHubOptions(list)).action(async (options) => {
    const { listSchedules } = await import("../job/schedules.ts");
    await listSchedules(options);
  });
  const remove = schedule.command("remove").description("remove a schedule; processes that it started go on");
  addJsonOption(addHubOptions(remove.argument("<name>"))).action(async (name, options) => {
    const { removeSchedule } = await import("../job/schedules.ts");
    await removeSchedule(name, options);
  });
}

function defineServers(command: Command): void {
  const servers = command
    .command("servers")
    .description("the job servers: state, revision, last fetch, steps");
  addJsonOption(addHubOptions(servers)).action(async (options) => {
    const { listServers } = await import("../job/servers.ts");
    await listServers(options);
  });

  const server = command.command("server").description("one job server: show it, or change its flags");
  addJsonOption(addHubOptions(server.argument("<queue>")))
    .option("--pause <reason>", "give it no steps until --resume")
    .option("--resume", "end the pause")
    .option("--disable", "switch it off")
    .option("--enable", "switch it on again")
    .option("--auto-update <on|off>", "whether it updates itself", onOff("--auto-update"))
    .option("--update-server <on|off>", "whether the others wait for its update", onOff("--update-server"))
    .option("--check-version", "put an update step into its queue")
    .action(async (queue: string, options) => {
      const { changeServer } = await import("../job/servers.ts");
      await changeServer(queue, options);
    });

  const limits = command.command("limits").description("how many steps of a component may run at once");
  const show = limits.command("list", { isDefault: true }).description("components and tasks with a limit");
  addJsonOption(addHubOptions(show)).action(async (options) => {
    const { listLimits } = await import("../job/servers.ts");
    await listLimits(options);
  });
  const set = limits.command("set").description("set the limits of a component in place of those it had");
  addJsonOption(addHubOptions(set.argument("<component>")))
    .option("--max <n>", "at once over the whole hub; 0: no limit; -1: one at a time", readLimit)
    .option("--task <name=n>", "of one task; -1: one, and nothing else of the component; repeatable", collect)
    .action(async (component: string, options) => {
      const { setLimit } = await import("../job/servers.ts");
      await setLimit(component, options);
    });

  const stop = command.command("stop").description("emergency stop of all job servers; nothing is lost");
  addJsonOption(addHubOptions(stop))
    .option("--reason <text>", "shown to everyone who wonders")
    .action(async (options) => {
      const { stopJobs } = await import("../job/servers.ts");
      await stopJobs(true, options);
    });
  const resume = command.command("resume").description("end the emergency stop");
  addJsonOption(addHubOptions(resume)).action(async (options) => {
    const { stopJobs } = await import("../job/servers.ts");
    await stopJobs(false, options);
  });
}

function onOff(name: string): (value: string) => boolean {
  return (value) => {
    if (value === "on" || value === "off") return value === "on";
    throw usage(`${name} takes on or off`, "on or off", value);
  };
}

function readLimit(value: string): number {
  if (/^(?:-1|[0-9]{1,9})$/.test(value)) return Number(value);
  throw usage("--max takes a limit", "-1, 0 or a number", value);
}

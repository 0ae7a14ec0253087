import { printable } from "@lockstep/platform";
import type { DbQueue } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments {
  readonly json?: boolean;
}

const JOURNAL_SHOWN = 20;

/** `lockstep dbqueue`: what the DBQueue Processor has to do and why it waits; its emergency stop. */
export function define(command: Command): void {
  const show = command
    .command("show", { isDefault: true })
    .description("what waits, what runs, what was put off and why");
  addJsonOption(addHubOptions(show))
    .option("--journal", "also the last events")
    .action(async (options: Common & { readonly journal?: boolean }) => {
      await withHub(options, async (hub) => tell(options, await hub.dbQueue(), options.journal === true));
    });
  const stop = command.command("stop").description("emergency stop: nothing new is begun, nothing is lost");
  addJsonOption(addHubOptions(stop))
    .option("--reason <text>", "shown to everyone who wonders")
    .action(async (options: Common & { readonly reason?: string }) => {
      await withHub(options, async (hub) =>
        tell(options, await hub.stopDbQueue(true, options.reason ?? null), false),
      );
    });
  const start = command.command("start").description("end the emergency stop");
  addJsonOption(addHubOptions(start)).action(async (options: Common) => {
    await withHub(options, async (hub) => tell(options, await hub.stopDbQueue(false, null), false));
  });
}

function tell(options: Common, queue: DbQueue, journal: boolean): void {
  const output = new Output(options);
  output.document(queue);
  if (queue.stopped)
    output.warn(
      `the DBQueue Processor is stopped${queue.stoppedReason === null ? "" : `: ${printable(queue.stoppedReason)}`}`,
    );
  printTable(
    output,
    [
      { title: "task" },
      { title: "waiting", align: "right" },
      { title: "processing", align: "right" },
      { title: "deferred", align: "right" },
      { title: "since" },
      { title: "waits for" },
      { title: "last error" },
    ],
    queue.tasks.map((task) => [
      task.task,
      String(task.waiting),
      String(task.processing),
      String(task.deferred),
      formatUtc(task.oldestAt),
      task.blockedBy ?? "",
      task.lastError ?? "",
    ]),
  );
  if (!journal) return;
  output.line();
  printTable(
    output,
    [{ title: "time" }, { title: "task" }, { title: "event" }, { title: "detail" }],
    queue.journal
      .slice(0, JOURNAL_SHOWN)
      .map((event) => [formatUtc(event.at), event.task, event.event, event.detail]),
  );
}

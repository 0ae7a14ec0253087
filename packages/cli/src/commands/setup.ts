import { readFileSync } from "node:fs";
import { listenForInterruption, printable } from "@lockstep/platform";
import { isLockstepError, LockstepError, type Setup } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addHubOptions, addJsonOption, usage } from "../options.ts";
import { Output } from "../screen/output.ts";
import { askText, askYesNo, canAsk } from "../screen/question.ts";

interface SetupOptions extends HubArguments {
  readonly json?: boolean;
  readonly yes?: boolean;
  readonly answers?: string;
}

/** `lockstep setup`: the Configuration Wizard (S22): checks, schema, shipped module files, Update.zip, in one run. */
export function define(command: Command): void {
  addJsonOption(addHubOptions(command))
    .option("--yes", "do not ask")
    .option("--answers <file>", 'settings as a JSON object, such as {"Common/AutoUpdate": false}')
    .action(runSetup);
}

/**
 * Shows each step with its state, asks, does what is needed. Whatever interrupts it: what was done stays done, and the
 * next run goes on from there.
 */
async function runSetup(options: SetupOptions): Promise<void> {
  const output = new Output(options);
  using interruption = listenForInterruption();
  const { signal } = interruption;
  const answers = options.answers === undefined ? null : readAnswers(options.answers);
  await withHub(options, async (hub) => {
    const before = await hub.setup(false, { signal });
    show(before, output);
    const needed = before.steps.filter((step) => step.state !== "done");
    if (needed.length === 0 && answers === null) {
      output.document(before);
      output.note("Nothing is left to do.");
      return;
    }
    const settings =
      answers ??
      (options.yes === true || !canAsk() ? null : await askSettings(hub.settings({ signal }), signal));
    await confirm(needed.length, options, signal);
    const wanted = settings !== null && Object.keys(settings).length > 0 ? settings : null;
    // Before the steps, because they may move the software revision; where the schema is still an older one, after.
    const early = wanted !== null && (await isServing(hub.setSettings(wanted, { signal })));
    const after = await hub.setup(true, { signal });
    if (wanted !== null && !early && after.steps.every((step) => step.state !== "failed"))
      await hub.setSettings(wanted, { signal });
    if (needed.length > 0) show(after, output);
    output.document(after);
    const failed = after.steps.filter((step) => step.state === "failed");
    if (failed.length > 0)
      throw new LockstepError("SETUP_INCOMPLETE", "the set-up is not complete", {
        faults: failed.map((step) => ({ where: step.title, problem: step.detail })),
        hint: "Correct the cause, then run lockstep setup again: it goes on where it stopped.",
      });
    output.note("The set-up is complete.");
  });
}

/** Whether the hub did it; false where it waits for this very set-up. */
async function isServing(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (isLockstepError(error, "DATABASE_SCHEMA_OLDER")) return false;
    throw error;
  }
}

function show(setup: Setup, output: Output): void {
  const marks = {
    done: output.paintData("green", "done  "),
    needed: output.paintData("yellow", "needed"),
    failed: output.paintData("red", "failed"),
  };
  for (const step of setup.steps)
    output.line(
      `${marks[step.state]}  ${printable(step.title)}${step.detail === "" ? "" : `: ${printable(step.detail)}`}`,
    );
}

async function askSettings(
  present: Promise<Record<string, string | number | boolean>>,
  signal: AbortSignal,
): Promise<Record<string, string | number | boolean>> {
  if (!(await isServing(present))) return {};
  const settings = await present;
  const changes: Record<string, string | number | boolean> = {};
  const auto = settings["Common/AutoUpdate"] !== false;
  const answer = await askText(
    "May installations update themselves (yes or no)?",
    auto ? "yes" : "no",
    signal,
  );
  const wanted = /^y/i.test(answer);
  if (wanted !== auto) changes["Common/AutoUpdate"] = wanted;
  const poll = settings["Common/AutoUpdate/PollSeconds"] ?? 300;
  const seconds = Number(await askText("How often should they ask, in seconds?", String(poll), signal));
  if (!Number.isInteger(seconds) || seconds < 1)
    throw usage("the interval is a whole number of seconds", "1 or more", String(seconds));
  if (seconds !== poll) changes["Common/AutoUpdate/PollSeconds"] = seconds;
  return changes;
}

async function confirm(needed: number, options: SetupOptions, signal: AbortSignal): Promise<void> {
  if (options.yes === true || (needed === 0 && options.answers !== undefined)) return;
  if (!canAsk())
    throw new LockstepError(
      "CONFIRMATION_REQUIRED",
      "the database would be changed, and nobody can be asked",
      {
        hint: "Nothing was changed. Give --yes to go on without a question.",
      },
    );
  if (await askYesNo("Do this now?", signal)) return;
  throw new LockstepError("CANCELLED", "not set up, as you wish", { hint: "Nothing was changed." });
}

function readAnswers(file: string): Record<string, string | number | boolean> {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw usage(
      `the answers in ${file} cannot be read`,
      "a JSON object of parameters",
      (cause as Error).message,
    );
  }
  if (!isSettings(value))
    throw usage(
      `the answers in ${file} are no parameters`,
      "a JSON object of texts, numbers, true and false",
    );
  return value;
}

function isSettings(value: unknown): value is Record<string, string | number | boolean> {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((each) => ["string", "number", "boolean"].includes(typeof each))
  );
}

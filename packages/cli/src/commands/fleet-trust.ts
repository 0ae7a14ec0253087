import { randomBytes } from "node:crypto";
import { type HubClient, InstallationClient } from "@lockstep/client";
import { sealPermit } from "@lockstep/trust";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { addKeyOptions, type KeyArguments, openKeys } from "../keys/key-files.ts";
import { addHubOptions, addJsonOption, usage, wholeNumber } from "../options.ts";
import { formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments {
  readonly json?: boolean;
}

/** The part of `lockstep fleet` that is about who an installation is, and what it is ordered to run. */
export function defineFleetTrust(command: Command): void {
  const enrol = command
    .command("enrol")
    .description("make a secret by which one installation can enrol, once; it is the only output");
  addJsonOption(addHubOptions(enrol))
    .argument("[installation]", "the id of one that exists already; else the secret is for a new one")
    .option("--hours <hours>", "how long it is good (else 24)", wholeNumber("--hours", 1, 8760))
    .option("--note <text>", "what it is for, as the hub remembers it")
    .action(makeSecret);

  const forget = command
    .command("forget")
    .description("forget the key of an installation; it may enrol again");
  addJsonOption(addHubOptions(forget.argument("<installation>", "its id"))).action(forgetKey);

  const alarms = command.command("alarms").description("what the hub noticed about installations");
  addJsonOption(addHubOptions(alarms))
    .option("--clear [installation]", "remove those of an installation, or all")
    .action(showAlarms);

  const order = command
    .command("order")
    .description("order an installation to a software revision, or to the newest again");
  addJsonOption(addHubOptions(order))
    .argument("<installation>", "its id")
    .argument("<revision>", "a software revision, or newest")
    .action(giveOrder);

  const orders = command.command("orders").description("the orders in force");
  addJsonOption(addHubOptions(orders)).action(listOrders);

  const permit = command
    .command("permit")
    .description("let an installation go back to a software revision once, signed by the release key");
  addKeyOptions(addJsonOption(addHubOptions(permit)))
    .argument("<installation>", "its id")
    .argument("<revision>", "the software revision", wholeNumber("the revision", 1, Number.MAX_SAFE_INTEGER))
    .option("--hours <hours>", "how long it is good (else 24)", wholeNumber("--hours", 1, 720))
    .action(givePermit);
}

async function makeSecret(
  installation: string | undefined,
  options: Common & { readonly hours?: number; readonly note?: string },
): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const made = await new InstallationClient(hub).makeSecret({
      hours: options.hours ?? 24,
      note: options.note ?? "",
      installation: installation ?? null,
    });
    output.document(made);
    output.line(made.secret);
    output.note(
      `good once, until ${formatUtc(made.expiresAt)}: lockstep install DIR --enrol FILE, or lockstep enrol DIR`,
    );
  });
}

async function forgetKey(installation: string, options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const forgotten = await new InstallationClient(hub).forget(installation);
    output.document({ installation, forgotten });
    output.line(forgotten ? `forgotten: ${installation}` : `no key was noted for ${installation}`);
  });
}

async function showAlarms(options: Common & { readonly clear?: string | true }): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const client = new InstallationClient(hub);
    const { alarms } = await client.status();
    const removed =
      options.clear === undefined
        ? null
        : await client.clearAlarms(options.clear === true ? null : options.clear);
    output.document({ alarms, removed });
    printTable(
      output,
      [
        { title: "alarm" },
        { title: "installation" },
        { title: "times", align: "right" },
        { title: "last" },
        { title: "what" },
      ],
      alarms.map((each) => [
        each.kind,
        each.subject,
        String(each.count),
        formatUtc(each.lastAt),
        each.detail,
      ]),
    );
    if (removed !== null) output.note(`${removed} removed`);
  });
}

async function giveOrder(installation: string, revision: string, options: Common): Promise<void> {
  const output = new Output(options);
  const to = revision === "newest" ? null : Number(revision);
  if (to !== null && !/^[1-9][0-9]{0,14}$/.test(revision))
    throw usage("there is no such software revision", "a number, or newest", revision);
  await withHub(options, async (hub) => {
    const order = await new InstallationClient(hub).giveOrder(installation, { revision: to, permit: null });
    output.document(order);
    output.line(
      `ordered: ${installation} runs ${to === null ? "the newest software revision" : `software revision ${to}`}`,
    );
    await warnOfGoingBack(hub, output, installation, to);
  });
}

async function warnOfGoingBack(
  hub: HubClient,
  output: Output,
  installation: string,
  to: number | null,
): Promise<void> {
  const { installations } = await hub.installations();
  const revision = installations.find(({ id }) => id === installation)?.revision ?? null;
  if (to !== null && revision !== null && to < revision)
    output.warn(
      `it is at software revision ${revision} and refuses to go back without a permit: lockstep fleet permit ${installation} ${to}`,
    );
}

async function listOrders(options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const { orders } = await new InstallationClient(hub).orders();
    output.document({ orders });
    printTable(
      output,
      [
        { title: "installation" },
        { title: "revision", align: "right" },
        { title: "counter", align: "right" },
        { title: "good until" },
        { title: "permit" },
      ],
      orders.map(({ installation, revision, counter, expiresAt, permit }) => [
        installation,
        revision === null ? "newest" : String(revision),
        String(counter),
        formatUtc(expiresAt),
        permit === null ? "" : "yes",
      ]),
    );
  });
}

const HOUR_MS = 3_600_000;

async function givePermit(
  installation: string,
  revision: number,
  options: Common & KeyArguments & { readonly hours?: number },
): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const client = new InstallationClient(hub);
    const { digest } = await client.destination(revision);
    const expiresAt = Date.now() + (options.hours ?? 24) * HOUR_MS;
    const signers = await openKeys(options, "targets");
    const permit = { installation, serial: randomBytes(16).toString("hex"), revision, digest, expiresAt };
    const document =
      signers.length > 0 ? await sealPermit(permit, signers) : (await client.signPermit(permit)).permit;
    const order = await client.giveOrder(installation, { revision, permit: document });
    output.document({ ...order, serial: permit.serial, permitExpiresAt: expiresAt });
    output.line(
      `permitted and ordered: ${installation} goes back to software revision ${revision}, once, until ${formatUtc(expiresAt)}`,
    );
  });
}

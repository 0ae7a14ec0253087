import type { SigningStatus } from "@lockstep/protocol/wire";
import { KEY_PURPOSES, type KeyPurpose, type KeyRole, publicKey, type Signer } from "@lockstep/trust";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";
import { changeRoot, demandRootKeys } from "../keys/change-root.ts";
import {
  addKeyOptions,
  externalSigners,
  type KeyArguments,
  makeKeyFiles,
  openKeys,
  readPassphrase,
} from "../keys/key-files.ts";
import { remarkOnLostKeys } from "../keys/remarks.ts";
import { addHubOptions, addJsonOption, usage, wholeNumber } from "../options.ts";
import { counted, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

interface Common extends HubArguments, KeyArguments {
  readonly json?: boolean;
}

/** `lockstep keys`: who can sign what. The secrets of root and release keys never leave this machine. */
export function define(command: Command): void {
  const list = command.command("list").description("which keys sign what, where they are, and until when");
  addJsonOption(addHubOptions(list)).action(listKeys);

  const init = command
    .command("init")
    .description(
      "take root and release keys off the hub: make new ones here, and let the hub forget its own",
    );
  addKeyOptions(addJsonOption(addHubOptions(init)))
    .option("--root-keys <count>", "how many root keys (else 3)", wholeNumber("--root-keys", 1, 16))
    .option("--threshold <count>", "how many of them are needed (else 2)", wholeNumber("--threshold", 1, 16))
    .action(initKeys);

  const rotate = command.command("rotate").description("replace the key of a role by a new one");
  addKeyOptions(
    addJsonOption(addHubOptions(rotate.argument("<role>", "root, targets, snapshot, timestamp or orders"))),
  )
    .option(
      "--root-keys <count>",
      "how many new root keys (else as many as now)",
      wholeNumber("--root-keys", 1, 16),
    )
    .option(
      "--threshold <count>",
      "how many of them are needed (else as now)",
      wholeNumber("--threshold", 1, 16),
    )
    .action(rotateKey);

  const signer = command
    .command("signer")
    .description("describe a key in hardware or elsewhere: the command that signs with it, tried once");
  addJsonOption(
    signer
      .argument("<file>", "the signer file to write")
      .argument("<command...>", "after --: a program that signs standard input"),
  )
    .requiredOption("--role <role>", "root or targets")
    .requiredOption("--public-key <file>", "its ed25519 public key, PEM or DER")
    .action(
      async (file: string, words: string[], options: { role: string; publicKey: string; json?: boolean }) => {
        const { makeSignerFile } = await import("../keys/signer-file.ts");
        await makeSignerFile(file, words, options);
      },
    );

  const recover = command
    .command("recover")
    .description(
      "after a restored backup or a stolen online key: new online keys, and a history that begins anew",
    );
  addKeyOptions(addJsonOption(addHubOptions(recover))).action(recoverKeys);
}

async function listKeys(options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => tell(output, await hub.signingStatus()));
}

function tell(output: Output, status: SigningStatus): void {
  output.document(status);
  printTable(
    output,
    [
      { title: "role" },
      { title: "version", align: "right" },
      { title: "good until" },
      { title: "needed" },
      { title: "keys" },
    ],
    status.roles.map(({ role, version, expiresAt, threshold, keys }) => [
      role,
      version === null ? "none" : String(version),
      expiresAt === null ? "" : formatUtc(expiresAt),
      `${threshold} of ${keys.length}`,
      keys.map(({ id, onHub }) => `${id.slice(0, 12)}${onHub ? " (on the hub)" : ""}`).join(", "),
    ]),
  );
  const orders = status.orders.map(({ id, onHub }) => `${id.slice(0, 12)}${onHub ? " (on the hub)" : ""}`);
  output.line(`orders: ${orders.length === 0 ? "no key (lockstep keys rotate orders)" : orders.join(", ")}`);
  output.line(
    `log of releases: ${counted(status.log.size, "entry", "entries")}, head ${status.log.head.slice(0, 16)}`,
  );
  const { awaiting } = status;
  if (awaiting !== null)
    output.line(
      `software revision ${awaiting.revision} waits for signatures: ${awaiting.signatures} of ${awaiting.needed}`,
    );
}

interface InitOptions extends Common {
  readonly rootKeys?: number;
  readonly threshold?: number;
}

function demandDirectory({ keys }: KeyArguments): string {
  if (keys === undefined) throw usage("no directory for key files was named", "--keys DIR", "none");
  return keys;
}

async function initKeys(options: InitOptions): Promise<void> {
  const output = new Output(options);
  const given = (await externalSigners(options, "root")).length;
  const count = given > 0 ? given : (options.rootKeys ?? 3);
  const threshold = options.threshold ?? Math.min(2, count);
  if (threshold > count)
    throw usage("more keys would be needed than there are", `at most ${count}`, String(threshold));
  await withHub(options, async (hub) => {
    const status = await hub.signingStatus();
    const former = await formerRoot(options, status);
    demandRootKeys(status, former);
    const root = await newKeys(options, "root", count, status);
    const release = await newKeys(options, "targets", 1, status);
    const changed = await changeRoot(hub, {
      roles: {
        root: { keys: root.map(({ key }) => key), threshold },
        targets: { keys: release.map(({ key }) => key), threshold: 1 },
      },
      formerSigners: former,
      newSigners: root,
      releaseSigners: release,
    });
    tell(output, changed);
    if (options.keys !== undefined)
      output.note(
        `The key files are in ${options.keys}. Keep copies of the root keys in different places, with different people.`,
      );
  });
}

/** The new keys of a role: those whose signer files were named, else key files that are made, encrypted, in the directory. */
async function newKeys(
  options: InitOptions,
  role: "root" | "targets",
  count: number,
  status: SigningStatus,
): Promise<Signer[]> {
  const present = new Set(keysOf(status, role));
  const elsewhere = (await externalSigners(options, role)).filter(({ key }) => !present.has(key.id));
  if (elsewhere.length > 0) return elsewhere;
  return await makeKeyFiles(demandDirectory(options), role, count, await readPassphrase(options, true));
}

function keysOf(status: SigningStatus, role: KeyRole): string[] {
  return status.roles.filter((each) => each.role === role).flatMap(({ keys }) => keys.map(({ id }) => id));
}

/** The root keys that are here and count now; a directory that does not exist yet holds none. */
async function formerRoot(options: Common, status: SigningStatus): Promise<Signer[]> {
  const { existsSync } = await import("node:fs");
  const { keys, ...others } = options;
  const opened = await openKeys(keys === undefined || !existsSync(keys) ? others : options, "root");
  const present = new Set(keysOf(status, "root"));
  return opened.filter(({ key }) => present.has(key.id));
}

async function rotateKey(role: string, options: InitOptions): Promise<void> {
  const output = new Output(options);
  if (!isPurpose(role))
    throw usage("there is no such kind of key", "root, targets, snapshot, timestamp or orders", role);
  await withHub(options, async (hub) => {
    const status = await hub.signingStatus();
    const former = await formerRoot(options, status);
    demandRootKeys(status, former);
    const present = status.roles.find((each) => each.role === role);
    const onHub = present?.keys.every((key) => key.onHub) === true;
    if (role === "root") {
      const count = options.rootKeys ?? present?.keys.length ?? 1;
      const made = await newKeys(options, "root", count, status);
      const threshold = Math.min(options.threshold ?? present?.threshold ?? 1, made.length);
      const keys = made.map(({ key }) => key);
      const change = {
        roles: { root: { keys, threshold } },
        formerSigners: former,
        newSigners: made,
        releaseSigners: [],
      };
      return tell(output, await changeRoot(hub, change));
    }
    if (role === "targets" && (!onHub || (await externalSigners(options, "targets")).length > 0)) {
      const made = await newKeys(options, "targets", 1, status);
      const roles = { targets: { keys: made.map(({ key }) => key), threshold: 1 } };
      return tell(output, await changeRoot(hub, { roles, formerSigners: former, releaseSigners: made }));
    }
    const key = publicKey(await hub.makeSigningKey(role));
    if (role === "orders") {
      const change = { roles: {}, orders: [key], formerSigners: former, releaseSigners: [] };
      return tell(output, await changeRoot(hub, change));
    }
    const roles = { [role]: { keys: [key], threshold: 1 } };
    tell(output, await changeRoot(hub, { roles, formerSigners: former, releaseSigners: [] }));
  });
}

function isPurpose(role: string): role is KeyPurpose {
  return KEY_PURPOSES.some((each) => each === role);
}

async function recoverKeys(options: Common): Promise<void> {
  const output = new Output(options);
  await withHub(options, async (hub) => {
    const status = await hub.signingStatus();
    const former = await formerRoot(options, status);
    demandRootKeys(status, former);
    const onHub = status.roles.find(({ role }) => role === "targets")?.keys.some((key) => key.onHub) === true;
    const releaseSigners = onHub ? [] : await openKeys(options, "targets");
    const snapshot = { keys: [publicKey(await hub.makeSigningKey("snapshot"))], threshold: 1 };
    const timestamp = { keys: [publicKey(await hub.makeSigningKey("timestamp"))], threshold: 1 };
    const orders = [publicKey(await hub.makeSigningKey("orders"))];
    const roles = { snapshot, timestamp };
    const change = { roles, orders, formerSigners: former, releaseSigners, newEpoch: true };
    tell(output, await changeRoot(hub, change));
    if (remarkOnLostKeys(status) !== null)
      output.note("A hub that was started without its keys publishes again once it is started again.");
    output.note(
      "Installations accept the present state with their next update, and say once that history began anew.",
    );
  });
}

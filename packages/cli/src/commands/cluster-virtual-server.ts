import type { Command } from "commander";
import { collect, collectList, usage, wholeNumber } from "../options.ts";
import { addClusterOptions, addFollowOptions, withCluster } from "./cluster-session.ts";

/** `lockstep cluster virtual-server`: registers services and says what becomes of them. */
export function defineVirtualServer(command: Command): void {
  const server = command
    .command("virtual-server")
    .description("what lives on the cluster: add, list, change, remove");
  defineAdd(server);
  const list = server.command("list").description("all virtual servers");
  addClusterOptions(list).action(async (options) => {
    const { listServers } = await import("../cluster/servers.ts");
    await withCluster(options, listServers);
  });
  const show = server.command("show").description("one virtual server with its definition");
  addClusterOptions(show.argument("<name>")).action(async (name: string, options) => {
    const { showServer } = await import("../cluster/servers.ts");
    await withCluster(options, (session) => showServer(session, name));
  });
  const set = server.command("set").description("change the definition of a virtual server");
  addServerOptions(addClusterOptions(set.argument("<name>"))).action(async (name: string, options) => {
    const { setServer } = await import("../cluster/servers.ts");
    await withCluster(options, (session) => setServer(session, name, options));
  });
  defineSwitches(server);
  const remove = server.command("remove").description("take a virtual server offline and forget it");
  addFollowOptions(remove.argument("<name>"))
    .option("--force", "although its owner does not answer")
    .option("--yes", "do not ask")
    .action(async (name: string, options) => {
      const { removeServer } = await import("../cluster/servers.ts");
      await withCluster(options, (session) => removeServer(session, name, options));
    });
}

function defineAdd(server: Command): void {
  const add = server
    .command("add")
    .description("register a service on a virtual server, and bring it online");
  addServerOptions(addFollowOptions(add.argument("<name>")))
    .option("--address <cidr[@interface]>", "an address, as 10.0.0.50/24@eth0; repeatable", collect)
    .option("--network-name <name>", "the name by which clients reach it")
    .option("--name-server <address>", "enter the name there (else into the owner's hosts file)")
    .option("--name-key <file>", "the key with which the name server is told")
    .option("--service <what>", "a program, a job service's configuration (.toml), or a systemd unit")
    .option("--argument <word>", "an argument of the program; repeatable", collect)
    .option("--installation <directory>", "the installation that the service lies in")
    .option("--mount <device:directory[=type]>", "a volume that the service needs; repeatable", collect)
    .option("--share <name=directory>", "a directory that clients may see; repeatable", collect)
    .option("--file <file>", "the definition in TOML; options count before it")
    .option("--offline", "register it, but do not bring it online")
    .option("--force", "although nodes are down or not alike")
    .option("--dry-run", "only check the definition")
    .action(async (name: string, options) => {
      const { addServer } = await import("../cluster/server-add.ts");
      await withCluster(options, (session) => addServer(session, name, options));
    });
}

function addServerOptions(command: Command): Command {
  return command
    .option("--preferred <node,...>", "owners in the order of preference", collectList)
    .option("--possible <node,...>", "nodes that can own it (else all)", collectList)
    .option("--anti-affinity <class,...>", "kept apart from others of the same class", collectList)
    .option("--weight <n>", "how much of a node it takes (1)", wholeNumber("--weight", 0, 1_000_000))
    .option("--failback <when>", "off, on, or between hours as 22-5")
    .option("--failover-limit <n/hours>", "so many failovers in so many hours, as 2/6")
    .option("--failsafe <on|off>", "stay without the store while every node agrees", onOff("--failsafe"))
    .option(
      "--network-name-inside <on|off>",
      "whether the service sees the virtual server's name as the machine's",
      onOff("--network-name-inside"),
    )
    .option(
      "--lock-delay <ms>",
      "wait so much longer after a loss",
      wholeNumber("--lock-delay", 0, 3_600_000),
    )
    .option("--time <term=value>", "one term of a lease of its own, as waitMs=5000; repeatable", collect)
    .option("--checkpoint <path>", "a file or directory that is replicated with it; repeatable", collect)
    .option("--config-file <path>", "the service's configuration, equal on all nodes")
    .option("--set <resource.setting=value>", "a setting of a resource; repeatable", collect)
    .option("--policy <resource.field=value>", "the policy of a resource; repeatable", collect)
    .option(
      "--needs <resource=expression>",
      "what a resource needs, as 'service=[name] and [mount]'",
      collect,
    );
}

function onOff(name: string): (value: string) => boolean {
  return (value) => {
    if (value === "on" || value === "off") return value === "on";
    throw usage(`${name} takes on or off`, "on or off", value);
  };
}

function defineSwitches(server: Command): void {
  for (const [wanted, text] of [
    ["online", "bring a virtual server online"],
    ["offline", "take a virtual server offline everywhere"],
  ] as const)
    addFollowOptions(server.command(wanted).description(text).argument("<name>")).action(
      async (name: string, options) => {
        const { wantServer } = await import("../cluster/servers.ts");
        await withCluster(options, (session) => wantServer(session, name, wanted, options));
      },
    );
  for (const [word, text] of [
    ["enable", "enable the cluster for a virtual server, and bring it online"],
    ["disable", "the cluster leaves it alone: its service is stopped on every node"],
  ] as const)
    addFollowOptions(server.command(word).description(text).argument("<name>")).action(
      async (name: string, options) => {
        const { enableServer } = await import("../cluster/servers.ts");
        await withCluster(options, (session) => enableServer(session, name, word === "enable", options));
      },
    );
  const maintenance = server
    .command("maintenance")
    .description("on: no failure counts and nothing is moved; off");
  addClusterOptions(maintenance.argument("<name>").argument("<on|off>", "", onOff("maintenance"))).action(
    async (name: string, isOn: boolean, options) => {
      const { maintainServer } = await import("../cluster/servers.ts");
      await withCluster(options, (session) => maintainServer(session, name, isOn));
    },
  );
}

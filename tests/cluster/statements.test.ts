import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, suite, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { ErrorDocument } from "../cli/lockstep.ts";
import { findProgram } from "../support/lab.ts";
import { freePorts } from "./etcd-cluster.ts";
import { NODES, type NodeName, World, whyNoCluster, whyNoNetwork } from "./world.ts";
import { startWorldNames, type WorldNames } from "./world-names.ts";

/**
 * The first of the two source documents, statement by statement, with the real commands: three machines, a client, and a
 * service on a virtual server. One story in the document's order; each test names its statement and quotes it.
 *
 * Where root is available the machines are hosts of the lab: each with a network and configuration files of its own, a
 * name server, an SMB client. Elsewhere they are on loopback, and statements about addresses, names, shares and each
 * node's own copy of a file are skipped by name.
 */
interface Answer {
  readonly hostname: string;
  readonly computerName: string;
  readonly node: NodeName;
  readonly term: number;
  readonly atStart: string | null;
}
interface Prediction {
  readonly to: string | null;
  readonly steps: readonly string[];
}

const networked = whyNoNetwork() === null;
const noNetwork = networked ? false : (whyNoNetwork() ?? "no network");
const ADDRESS = "10.77.0.50";
const NAME = "app.example.test";
const SERVICE = fileURLToPath(new URL("./world-service.ts", import.meta.url));
const missing = (...programs: readonly string[]) => {
  const lacking = programs.filter((program) => findProgram(program) === null);
  return lacking.length === 0 ? noNetwork : `needs ${lacking.join(", ")}, not on this machine`;
};
const noNames = missing("named", "nsupdate", "dig", "tsig-keygen");
const noShare = missing("smbd", "smbclient");

const UNIT_SCRIPT = `#!/bin/sh
# Programs of a node have a bare environment; whose it is stands in that of whoever started this.
config=$(tr '\\0' '\\n' < /proc/$PPID/environ | sed -n 's/^LOCKSTEP_NODE_CONFIG=//p')
[ -n "$config" ] && cd "\${config%/*}" || exit
# Whoever reads it meanwhile finds it whole.
put() { echo "$1" > "$2.$$" && mv "$2.$$" "$2"; }
case "$1" in
  show) printf 'LoadState=loaded\\nActiveState=%s\\nUnitFileState=%s\\n' "$(cat state)" "$(cat mode)" ;;
  cat) echo '[Service]' ;;
  start) put active state ;;
  stop | kill) put inactive state ;;
  is-active) cat state ;;
  disable) put disabled mode ;;
esac
`;

suite("the source document, S1 to S15", { skip: whyNoCluster() ?? false }, () => {
  let world: World;
  let names: WorldNames | null = null;
  let port = 8080;
  let config = "";

  before(async () => {
    world = await World.open(networked);
    if (!networked) [port = 0] = await freePorts(1);
    await world.found();
    config = join(world.site, "service.toml");
    if (noNames === false && world.lab !== null) names = await startWorldNames(world.lab.host("client"));
  });
  after(async () => {
    await names?.stop();
    await world.close();
  });

  /** The configuration file of a job service, as the document means it; the service of this test reads two lines of it. */
  const configText = (queue: string, output = world.path("service.log"), remark = "") =>
    [
      `${remark}[JobProvider]`,
      'Hub = "http://127.0.0.1:9"',
      "[[JobServiceDestination]]",
      `Queue = "${queue}"`,
      "[FileLogWriter]",
      `OutPutFile = "${output}"`,
      "[HTTPStatus]",
      `Port = ${port}`,
      "",
    ].join("\n");
  const machines = () => (networked ? NODES : ["alpha"]);
  const writeConfig = (text: string, nodes: readonly string[] = machines()) => {
    for (const node of nodes) writeFileSync(join(world.siteOf(node), "service.toml"), text);
  };
  const definition = (name = "APP", at = ADDRESS) => [
    ...["virtual-server", "add", name, "--service", process.execPath, "--config-file", config],
    ...["--argument", SERVICE, "--argument", config, "--set", `service.probeTcp=127.0.0.1:${port}`],
    // Who stands still for a while has not failed.
    ...["--preferred", "alpha,beta,gamma", "--set", "service.probeMs=60000"],
    ...(networked ? ["--address", `${at}/24`] : []),
    ...(names === null ? [] : ["--network-name", NAME, ...names.options]),
  ];
  const faultsOf = async (node: string, args: readonly string[], status = 3) => {
    const { code, faults = [] } = (await world.ask<ErrorDocument>(node, args, status)).error;
    return { code, text: faults.map(({ where, problem }) => `${where}: ${problem}`).join("\n") };
  };
  const askAt = async (host: string, path = "", method = "GET"): Promise<string> => {
    const script =
      "fetch(process.argv[1], { method: process.argv[2], signal: AbortSignal.timeout(60000) }).then((a) => a.text()).then(console.log)";
    const url = `http://${host}:${port}/${path}`;
    const run = await world.run("client", process.execPath, "-e", script, url, method);
    assert.equal(run.status, 0, `${url}: ${run.stderr}`);
    return run.stdout;
  };
  const host = () => (networked ? ADDRESS : "127.0.0.1");
  const answer = async (): Promise<Answer> => JSON.parse(await askAt(host())) as Answer;
  const untilWell = () => world.until("well", async () => ((await world.status()).healthy ? true : null));
  const move = (to: NodeName) => world.ask("client", ["move", "APP", "--to", to]);
  const other = (than: NodeName): NodeName => NODES.find((node) => node !== than) ?? "alpha";

  // "The installation of server components ... needs to be done on all the physical nodes of the cluster."
  test("S8: a service that is not installed on all nodes is not registered", async () => {
    writeConfig(configText("APP"));
    const program = join(world.site, "server");
    if (networked) writeFileSync(join(world.siteOf("alpha"), "server"), "#!/bin/sh\n", { mode: 0o755 });
    const { code, text } = await faultsOf("alpha", ["virtual-server", "add", "APP", "--service", program]);
    assert.equal(code, "CLUSTER_CHECK_FAILED");
    for (const node of ["beta", "gamma"]) assert.match(text, new RegExp(`${node}: .*server`));
    assert.equal(/^alpha: /m.test(text), !networked, "there it is installed");
    assert.deepEqual((await world.status()).virtualServers, []);
  });

  // "In the configuration of the JobServiceDestination, the Queue parameter must contain the name of the virtual server."
  test("S9: a queue that is not the virtual server's name is refused", async () => {
    for (const wrong of ["alpha", "OTHER"]) {
      writeConfig(configText(wrong));
      assert.equal((await faultsOf("alpha", definition())).code, "CONFIG_QUEUE_REFUSED", wrong);
    }
    assert.deepEqual((await world.status()).virtualServers, []);
  });

  // "the configuration file ... needs to be copied to all the physical nodes. You must not change the name"
  test("S10: a node without the configuration file, or with it under another name, is found", {
    skip: noNetwork,
  }, async () => {
    writeConfig(configText("APP"), ["alpha", "beta"]);
    writeFileSync(join(world.siteOf("gamma"), "Service.toml"), configText("APP"));
    writeFileSync(join(world.siteOf("gamma"), "service.toml"), "");
    const run = await world.run("gamma", "rm", join(world.site, "service.toml"));
    assert.equal(run.status, 0);
    const { code, text } = await faultsOf("alpha", definition());
    assert.equal(code, "CLUSTER_CHECK_FAILED");
    assert.match(text, /^gamma: .*service\.toml is not there/m);
    assert.doesNotMatch(text, /^(?:alpha|beta): /m);
  });

  // "Services on nodes are brought automatically into the required state (Manual or Stopped) before they are registered"
  test("S7: registering it stops it on every node, makes it manual there, and only then it begins", async () => {
    // No systemd runs in the lab: a script keeps the state of a unit for each machine, as a systemd would.
    writeFileSync(world.path("bin", "systemctl"), UNIT_SCRIPT, { mode: 0o755 });
    const stateOf = (node: string) =>
      ["state", "mode"].map((name) => readFileSync(world.path(node, name), "utf8"));
    for (const node of NODES)
      for (const [name, text] of [
        ["state", "active\n"],
        ["mode", "enabled\n"],
      ] as const)
        writeFileSync(world.path(node, name), text);
    await world.ask("alpha", ["virtual-server", "add", "UNIT", "--service", "app.service", "--offline"]);
    for (const node of NODES) assert.deepEqual(stateOf(node), ["inactive\n", "disabled\n"], node);
    await world.ask("alpha", ["virtual-server", "remove", "UNIT", "--yes"]);

    writeConfig(configText("APP"));
    const tokens = await world.lockstep(
      "client",
      "cluster",
      "history",
      "--server",
      "APP",
      "--last",
      "100000",
    );
    assert.doesNotMatch(tokens.stdout, /took/, "what was refused above never began anywhere");
    const run = await world.lockstep("alpha", "cluster", ...definition());
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stderr, /compared 3 nodes: the service is stopped and installed alike on all/);
  });

  // "Select the Generic Service resource type. Select the following ... dependencies."
  test("S12: one command makes the resource of type Generic Service with its dependencies, and brings it online", async () => {
    const { definition: made } = await world.ask<{
      definition: {
        resources: readonly {
          readonly name: string;
          readonly type: string;
          readonly policy: { readonly dependency: readonly (readonly string[])[] };
        }[];
      };
    }>("client", ["virtual-server", "show", "APP"]);
    const service = made.resources.find(({ type }) => type === "generic-service");
    const needs = names === null ? (networked ? [["address"]] : []) : [["name"]];
    assert.deepEqual(service?.policy.dependency, needs);
    assert.equal(await world.owner("APP"), "alpha");
    const { steps } = await world.ask<Prediction>("client", ["move", "APP", "--dry-run"]);
    const online = steps.filter((step) => step.endsWith("comes online"));
    assert.match(online.at(-1) ?? "", /\[service\]/, "what it needs comes first");
  });

  // "The service is always started only on the current node ... The service is stopped on all other nodes."
  test("S5: it runs on its owner alone, also while it moves", async () => {
    const seen: string[][] = [];
    let isLooking = true;
    const looking = (async () => {
      while (isLooking) {
        seen.push(world.servingOn("APP"));
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    })();
    for (const node of ["beta", "gamma", "alpha"] as const) {
      await move(node);
      assert.deepEqual(world.servingOn("APP"), [node]);
      assert.equal((await answer()).node, node);
    }
    isLooking = false;
    await looking;
    assert.deepEqual(
      seen.filter((nodes) => nodes.length > 1),
      [],
    );
    assert.ok(new Set(seen.flat()).size === 3, "it was seen on each");
  });

  // "All computer-related operations and service data operate, transparently, with the virtual server"
  test("S2: inside the service the computer is the virtual server, on every node", async () => {
    const isNamed = process.getuid?.() === 0;
    for (const node of NODES) {
      if ((await world.owner("APP")) !== node) await move(node);
      const { hostname, computerName, node: real } = await answer();
      assert.deepEqual([computerName, real], ["APP", node]);
      if (isNamed) assert.equal(hostname, "APP");
    }
  });

  // "This also applies to clients that contact the service through the server name, for example ... TCP/IP ... or HTTP."
  test("S3: a client reaches it by the virtual server's name before and after a move", {
    skip: noNames,
  }, async () => {
    assert.ok(names !== null);
    for (const node of ["beta", "gamma"] as const) {
      await move(node);
      // It is entered beside what brings the service online.
      const address = await world.until("entered", async () => {
        const found = await names?.lookUp(NAME);
        return found === undefined || found.length === 0 ? null : found;
      });
      assert.deepEqual(address, [ADDRESS]);
      assert.equal((JSON.parse(await askAt(address[0] ?? "")) as Answer).node, node);
    }
  });

  // "The service-specific settings for the node on which the virtual server is located are replicated to all other nodes."
  test("S4: what the service set on one node is there before it starts on another", async () => {
    for (const setting of ["red", "green"]) {
      const from = await world.owner("APP");
      await askAt(host(), setting, "PUT");
      await move(other(from));
      assert.equal((await answer()).atStart, setting);
    }
    // Also where nobody could say goodbye.
    const from = await world.owner("APP");
    const stored = async () => (await world.status()).virtualServers[0]?.settings?.number ?? 0;
    const before = await stored();
    await askAt(host(), "blue", "PUT");
    await world.until("blue is in the store", async () => ((await stored()) > before ? true : null));
    await untilWell();
    await world.ask("client", ["drill", "APP", "--yes", "--what", "daemon"]);
    assert.equal(await world.owner("APP"), from);
    assert.equal((await answer()).atStart, "blue");
  });

  // "Do not enter additional registration keys."
  test("S13: nothing was registered for that", async () => {
    const { definition: made } = await world.ask<{ definition: { checkpoints: readonly string[] } }>(
      "client",
      [...["virtual-server", "show", "APP"]],
    );
    assert.deepEqual(made.checkpoints, []);
  });

  // "One Identity Manager Service configuration is not part of a cluster resource. Thus, each node keeps its own
  // configuration. ... you must ensure that the configuration files on the physical nodes are consistent."
  test("S11: each node keeps its own copy; one that differs is found, and its node is no candidate", {
    skip: noNetwork,
  }, async () => {
    await world.ask("alpha", ["config", "push", "APP", config, "--timeout", "300"]);
    await world.until("equal everywhere", async () =>
      (await world.lockstep("client", "cluster", "config", "verify", "APP")).status === 0 ? true : null,
    );
    const owner = await world.owner("APP");
    const strange = other(owner);
    const text = configText("APP", world.path("service.log"), "# edited by hand\n");
    writeFileSync(join(world.siteOf(strange), "service.toml"), text);
    await world.until("found", async () =>
      (await world.lockstep("client", "cluster", "config", "verify", "APP")).status === 3 ? true : null,
    );
    const status = await world.until("told", async () => {
      const found = await world.status();
      return found.problems.some((problem) => problem.includes("configuration differs")) ? found : null;
    });
    assert.match(status.problems.join("\n"), new RegExp(`configuration differs on .*${strange}`));
    const refused = await faultsOf("client", ["move", "APP", "--to", strange], 3);
    assert.equal(refused.code, "CONFIG_DIFFERS");
    await move(NODES.find((node) => node !== owner && node !== strange) ?? owner);
    assert.equal(
      readFileSync(join(world.siteOf(strange), "service.toml"), "utf8"),
      text,
      "the cluster left it alone",
    );
    writeConfig(readFileSync(join(world.siteOf(owner), "service.toml"), "utf8"));
    await untilWell();
  });

  // "it is advisable to simulate a failover so that possible problems with the cluster do not arise during live operations."
  test("S14: a failover is simulated on demand, and everything is as before", async () => {
    const before = await world.owner("APP");
    interface Drill {
      readonly passed: boolean;
      readonly rounds: readonly { readonly recoveredOn: NodeName; readonly timeline: readonly unknown[] }[];
    }
    await untilWell();
    const report = await world.ask<Drill>("client", ["drill", "APP", "--yes", "--what", "node"]);
    assert.equal(report.passed, true);
    assert.notEqual(report.rounds[0]?.recoveredOn, before, "it really failed over");
    assert.ok((report.rounds[0]?.timeline.length ?? 0) > 5, "a report of each step (behaviour 58)");
    assert.equal(await world.owner("APP"), before);
  });

  // "The service is booted and shutdown with the virtual server. If the cluster is not enabled, the service is stopped on
  // all nodes."
  test("S6: it goes and comes with the virtual server; not enabled, it is stopped everywhere", async () => {
    await world.ask("client", ["virtual-server", "offline", "APP"]);
    await world.until("stopped", () => (world.servingOn("APP").length === 0 ? true : null));
    await world.ask("client", ["virtual-server", "online", "APP"]);
    assert.deepEqual(world.servingOn("APP"), [await world.owner("APP")]);
    await world.ask("client", ["virtual-server", "disable", "APP"]);
    await world.until("stopped everywhere", () => (world.servingOn("APP").length === 0 ? true : null));
    const refused = await faultsOf("client", ["move", "APP"], 1);
    assert.equal(refused.code, "VIRTUAL_SERVER_DISABLED");
    assert.deepEqual(world.servingOn("APP"), []);
    await world.ask("client", ["virtual-server", "enable", "APP"]);
    assert.deepEqual(world.servingOn("APP"), [await world.owner("APP")]);
  });

  // "Once registered, the ... Service is governed by cluster handling for site resilience and load balancing."
  test("S1: a lost node costs nobody the service, and several spread over the nodes that are left", async () => {
    const dead = await world.owner("APP");
    const busy = ["--service", "/bin/sh", "--argument", "-c", "--argument", "while :; do sleep 1; done"];
    for (const name of ["ONE", "TWO"])
      await world.ask("client", ["virtual-server", "add", name, ...busy, "--preferred", dead]);
    for (const name of ["ONE", "TWO"]) assert.equal(await world.owner(name), dead);
    await world.killDaemon(dead);
    const owners = new Map<string, NodeName>();
    for (const name of ["APP", "ONE", "TWO"])
      owners.set(
        name,
        await world.until(`${name} elsewhere`, async () => {
          const owner = await world.owner(name);
          return owner === dead ? null : owner;
        }),
      );
    assert.equal((await answer()).node, owners.get("APP"));
    assert.equal(new Set(owners.values()).size, 2, `not all on one: ${[...owners].join("; ")}`);
    await world.startDaemon(dead);
    for (const name of ["ONE", "TWO"]) await world.ask("client", ["virtual-server", "remove", name, "--yes"]);
  });

  // "Select the File Share resource type. Select at least the following dependency: ... Service. In the configuration file
  // ... adapt the directory information in the Log file (OutPutFile) parameter of the log writer."
  test("S15: the log lies on a shared volume, is one over a failover, and is shown by a share that needs the service", {
    skip: noShare,
  }, async () => {
    await world.ask("client", ["virtual-server", "remove", "APP", "--yes"]);
    for (const directory of ["volume", "mounted"]) mkdirSync(world.path(directory), { recursive: true });
    writeConfig(configText("APP", world.path("mounted", "service.log")));
    const at = "10.77.0.51";
    await world.ask("alpha", [
      ...definition("APP", at).filter(
        (word) => word !== NAME && word !== "--network-name" && !names?.options.includes(word),
      ),
      ...["--mount", `${world.path("volume")}:${world.path("mounted")}=bind`],
      ...[
        "--share",
        `logs=${world.path("mounted")}`,
        "--set",
        "share.guest=true",
        "--set",
        "share.forceUser=root",
      ],
    ]);
    const { definition: made } = await world.ask<{
      definition: {
        resources: readonly { readonly name: string; readonly policy: { readonly dependency: unknown } }[];
      };
    }>("client", ["virtual-server", "show", "APP"]);
    const dependencyOf = (name: string) =>
      made.resources.find((each) => each.name === name)?.policy.dependency;
    assert.deepEqual(dependencyOf("share"), [["service"]]);
    const from = await world.owner("APP");
    await untilWell();
    await world.ask("client", ["drill", "APP", "--yes", "--what", "daemon"]);
    assert.equal(await world.owner("APP"), from);
    const got = world.path("client", "got.log");
    const smb = ["-N", "-p", "445", "-c", `get service.log ${got}`, `//${at}/logs`];
    const run = await world.run("client", "smbclient", ...smb);
    assert.equal(run.status, 0, run.stdout + run.stderr);
    const lines = readFileSync(got, "utf8").trimEnd().split("\n");
    const records = lines.map((line) => JSON.parse(line) as { node: string; term: number; what: string });
    assert.deepEqual(
      records.filter(({ what }) => what === "begins").map(({ node }) => node === from),
      [true, false, true],
      "one log of both nodes",
    );
    const terms = records.map(({ term }) => term);
    assert.deepEqual(
      terms,
      terms.toSorted((a, b) => a - b),
      "in the order of their owning",
    );
  });
});

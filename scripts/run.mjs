// The front door of every `npm run` command. Plain JavaScript for Node 20 and without a dependency, because it runs
// before anything is installed, on whatever Node the machine has. It installs what is missing, says so, and then hands
// over to the real script on the Node that the lock file pins.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ensureInstalled, root } from "./install.mjs";
import { ensureMachineTools } from "./machine-tools.mjs";
import { findNode } from "./pinned-node.mjs";
import { passThrough } from "./spawn.mjs";

/** What the comparison of failovers runs on, and beside. */
const FAILOVER = [
  ...["etcd-server", "iproute2", "nftables", "iputils-arping", "resource-agents", "strace"],
  ...["keepalived", "pacemaker", "corosync"],
];

/** What each command runs, and which programs of the machine it needs besides Node. */
const COMMANDS = {
  demo: { script: "scripts/demo.ts", tools: [] },
  test: {
    script: "scripts/test.ts",
    tools: [
      ...["strace", "openssl", "postgresql", "systemd", "etcd-server"],
      ...["iproute2", "nftables", "iputils-ping", "iputils-arping", "libndp-tools"],
      ...["bind9", "bind9-dnsutils", "samba", "smbclient", "resource-agents", "kmod"],
      "nginx-light",
    ],
  },
  check: { script: "scripts/check.ts", tools: [] },
  bench: { script: "bench/run.ts", tools: ["openssl", "rsync", "git", "tar", ...FAILOVER] },
  sim: { script: "tests/simulation/main.ts", tools: [] },
  format: { script: "scripts/format.ts", tools: [] },
  build: { script: "scripts/build.ts", tools: [] },
};

const [name, ...rest] = process.argv.slice(2);
const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
if (command === undefined) {
  console.error(`usage: npm run ${Object.keys(COMMANDS).join("|")}`);
  process.exit(2);
}
await ensureInstalled();
await ensureMachineTools(command.tools);
const script = join(root, command.script);
if (!existsSync(script)) {
  console.error(`npm run ${name}: ${command.script} is not there yet`);
  process.exit(1);
}
const node = findNode(root);
if (node === null) process.exit(1);
await passThrough(node, [script, ...rest]);

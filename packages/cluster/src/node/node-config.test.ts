import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "@lockstep/protocol/wire";
import fc from "fast-check";
import { parseNodeConfig } from "./node-config.ts";
import { NODE_CONFIG_ROOT, NODE_CONFIG_TABLES } from "./node-config-table.ts";

const FILE = "/etc/lockstep/node.toml";
const SMALL = `address = "10.0.0.1:7420"
[coordination]
endpoints = ["http://10.0.0.1:2379"]
`;

function told(text: string): string[] {
  try {
    parseNodeConfig(text, FILE);
    return [];
  } catch (error) {
    assert.ok(isLockstepError(error, "NODE_CONFIG"), String(error));
    return error.faults.map(({ where, problem }) => `${where} ${problem}`);
  }
}

test("a small file is enough; everything else has its default, and paths count from the file", () => {
  const { name, ...config } = parseNodeConfig(`${SMALL}caFile = "ca.pem"\n`, FILE);
  assert.ok(name.length > 0);
  assert.deepEqual(config, {
    file: FILE,
    address: "10.0.0.1:7420",
    data: "/var/lib/lockstep/node",
    coordination: {
      store: "etcd",
      endpoints: ["http://10.0.0.1:2379"],
      callMs: 2000,
      prefix: "lockstep/",
      caFile: "/etc/lockstep/ca.pem",
    },
    keyFile: "/etc/lockstep/cluster.key",
    pushedConfig: "accept",
    guard: { watchdog: null, priority: null },
  });
});

test("a database by a file with its address", () => {
  const { coordination } = parseNodeConfig(
    'name = "beta"\naddress = "[fd00::1]:7420"\n[coordination]\nstore = "postgres"\nurlFile = "db.url"\nprefix = "prod/"\n',
    FILE,
  );
  assert.deepEqual(coordination, {
    store: "postgres",
    urlFile: "/etc/lockstep/db.url",
    prefix: "prod/",
    callMs: 2000,
    watchMs: 200,
  });
});

test("every fault is told at once, with line and column and what is meant", () => {
  assert.deepEqual(
    told(`name = "a b"
adress = "10.0.0.1:7420"
data = 5
[coordination]
store = "postgres"
endpoint = "http://x"
endpoints = ["http://me:secret@x"]
url = "postgres://me:secret@db/lockstep"
callMs = 1
[keys]
[guard]
priority = 100
`),
    [
      "node.toml:1:1 name: must be a name of letters, digits, dots, hyphens and underscores",
      "node.toml:1:1 address: is missing, and there is no default",
      "node.toml:2:1 adress: is not known in this file; did you mean address?",
      "node.toml:3:1 data: must be a path in quotes",
      "node.toml:6:1 coordination.endpoint: is not known in [coordination]; did you mean endpoints?",
      'node.toml:7:1 coordination.endpoints: must be a list of addresses such as ["http://10.0.0.1:2379"], without user and password',
      'node.toml:7:1 coordination.endpoints: does not belong to store = "postgres"',
      "node.toml:8:1 coordination.url: holds a password; secrets never stand in this file: put it into a file and name that by urlFile",
      "node.toml:9:1 coordination.callMs: must be a whole number from 50 to 60000 (ms)",
      "node.toml:10:1 keys: is not known in this file; did you mean key?",
      "node.toml:12:1 guard.priority: must be a whole number from 1 to 99",
    ],
  );
  assert.match(told("name = ").join(), /^node.toml:1:8 /);
  assert.match(
    told(`${SMALL}user = "me"\ncertFile = "c"\n`).join("\n"),
    /needs the other one of user[\s\S]*certFile/,
  );
});

test("no value of any key makes the reader throw anything else", () => {
  const keys = [
    ...Object.keys(NODE_CONFIG_ROOT).map((key) => ["", key]),
    ...Object.entries(NODE_CONFIG_TABLES).flatMap(([table, rows]) =>
      Object.keys(rows).map((key) => [table, key]),
    ),
  ];
  const toml = fc.oneof(
    fc.integer().map(String),
    fc.string({ maxLength: 30 }).map((text) => JSON.stringify(text).replaceAll("\u007f", "")),
    fc.constantFrom("[]", "{}", "1.5", "nan", '["a"]', "1979-05-27", "true", '""', "[[]]"),
  );
  fc.assert(
    fc.property(fc.constantFrom(...keys), toml, ([table, key], value) => {
      told(`${table === "" ? "" : `[${table}]\n`}${key} = ${value}\n`);
    }),
  );
});

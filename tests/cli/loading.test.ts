import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type ClientRequest, createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type LoadDocument, useHub } from "./hub-session.ts";
import {
  documentOf,
  type Ended,
  type ErrorDocument,
  ended,
  PROGRAM,
  start,
  temporaryDirectory,
} from "./lockstep.ts";

const { directory, hub, run, load, refused, makeSource, listed } = useHub();

test("the first line of a hub is `ready URL`, and it is the only one", () => {
  assert.match(hub().url, /^http:\/\/127\.0\.0\.1:\d+$/);
});

test("a load shows states, moves the software revision and prints it; loading it again moves nothing", async () => {
  const source = makeSource("first", { "a.txt": "a", "sub/b.txt": "b" });
  const args = ["--module", "FIRST", "--version", "1", "--assign", "**=Server"];
  const dry = await run("load", source, ...args, "--dry-run", "--json", "--verbose");
  assert.equal(dry.status, 0);
  const shown = documentOf<LoadDocument>(dry);
  assert.deepEqual([shown.loaded, shown.revision, shown.statuses.unknown], [false, null, 2]);
  assert.deepEqual(shown.files, [
    { path: "first/a.txt", size: 1, status: "unknown" },
    { path: "first/sub/b.txt", size: 1, status: "unknown" },
  ]);
  assert.equal((await listed("first/**")).size, 0, "a dry run changes nothing");

  const first = await load(source, ...args);
  assert.equal(first.loaded, true);
  assert.ok((first.revision ?? 0) > (first.revisionBefore ?? 0));
  const again = await load(source, ...args);
  assert.deepEqual([again.changes, again.revision, again.statuses.equal], [false, first.revision, 2]);

  writeFileSync(join(source, "first/a.txt"), "A");
  const plain = await run("load", source, ...args, "--yes");
  assert.equal(plain.stdout, `software revision ${(first.revision ?? 0) + 1}\n`);
  assert.match(plain.stderr, /^ {2}changed +1 file /m);
  const { sha256 } = (await listed("first/a.txt")).get("first/a.txt") ?? {};
  assert.equal(sha256, createHash("sha256").update("A").digest("hex"));
});

test("without a terminal and without --yes a changing load is refused, and nothing changes", async () => {
  const source = makeSource("unasked", { x: "x" });
  const error = await refused("load", source, "--module", "UNASKED", "--version", "1");
  assert.equal(error.code, "CONFIRMATION_REQUIRED");
  assert.match(error.hint ?? "", /--yes/);
  assert.equal((await listed("unasked/**")).size, 0);
});

/** Runs a command on a terminal (made by `script`) and types an answer when it asks. */
async function onTerminal(answer: string, ...args: string[]): Promise<Ended> {
  const words = [process.execPath, PROGRAM, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn(
    "script",
    ["--quiet", "--return", "--command", `stty cols 90; exec ${words}`, "/dev/null"],
    {
      env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", TERM: "xterm", ...hub().env },
      stdio: ["pipe", "pipe", "pipe"],
    },
  );
  const end = ended(child);
  let shown = "";
  let typed = false;
  child.stdout?.on("data", (text: string) => {
    shown += text;
    if (!typed && shown.includes("[y/N]")) {
      typed = true;
      child.stdin?.write(answer);
    }
  });
  return await end.finally(() => child.stdin?.destroy());
}

test("on a terminal the loader shows colours and a bar, asks, and obeys the answer", async () => {
  const source = makeSource("asked", { x: "x" });
  const args = ["load", source, "--module", "ASKED", "--version", "1"];
  const no = await onTerminal("n\r", ...args);
  assert.equal(no.status, 4, no.stdout);
  assert.match(no.stdout, /error CANCELLED/);
  const stopped = await onTerminal("\u0003", ...args);
  assert.equal(stopped.status, 130, stopped.stdout);
  assert.match(stopped.stdout, /error INTERRUPTED/);
  assert.equal((await listed("asked/*")).size, 0);
  const yes = await onTerminal("y\r", ...args);
  assert.equal(yes.status, 0, yes.stdout);
  assert.ok(yes.stdout.includes("\u001b[1mASKED 1 (version)"), "colours");
  assert.match(yes.stdout, /\[[#-]+\] +\d+% loading/);
  assert.equal((await listed("asked/*")).size, 1);
});

test("--no-wait ends at once with the number of the load", async () => {
  const source = makeSource("hasty", { x: "x" });
  const end = await run("load", source, "--module", "HASTY", "--version", "1", "--yes", "--no-wait");
  assert.equal(end.status, 0);
  assert.match(end.stdout, /^load \d+ \(the software revision was \d+\)\n$/);
});

test("a version removes what it lacks, a service pack does not, a hotfix refuses what is unknown", async () => {
  const source = makeSource("kinds", { one: "1", two: "2" });
  const module = ["--module", "KINDS", "--assign", "**=Server"];
  await load(source, ...module, "--version", "1");
  rmSync(join(source, "kinds/two"));
  writeFileSync(join(source, "kinds/three"), "3");

  const hotfix = await refused("load", source, ...module, "--version", "1.0.1", "--kind", "hotfix", "--yes");
  assert.equal(hotfix.code, "LOAD_REFUSED");
  assert.deepEqual(
    hotfix.faults?.map((fault) => fault.where),
    ["kinds/three"],
  );

  await load(source, ...module, "--version", "1.1", "--kind", "service-pack");
  assert.deepEqual([...(await listed("kinds/*")).keys()].sort(), ["kinds/one", "kinds/three", "kinds/two"]);
  const version = await load(source, ...module, "--version", "2");
  assert.deepEqual(version.removed, ["kinds/two"]);
  assert.deepEqual([...(await listed("kinds/*")).keys()].sort(), ["kinds/one", "kinds/three"]);
});

test("a lower version needs --yes; a path of another module is refused in every kind", async () => {
  const source = makeSource("owned", { x: "x" });
  await load(source, "--module", "OWNER", "--version", "2", "--assign", "**=Server");
  const lower = await refused("load", source, "--module", "OWNER", "--version", "1");
  assert.match(lower.code, /^LOAD_REFUSED$|^DOWNGRADE_REFUSED$/);
  assert.equal((await load(source, "--module", "OWNER", "--version", "1")).loaded, true);
  for (const kind of ["version", "service-pack", "hotfix"]) {
    const foreign = await refused(
      "load",
      source,
      "--module",
      "THIEF",
      "--version",
      "1",
      "--kind",
      kind,
      "--yes",
    );
    assert.equal(foreign.code, "LOAD_REFUSED", kind);
    assert.ok(
      foreign.faults?.some((fault) => fault.where === "owned/x"),
      kind,
    );
  }
});

test("the last matching --assign wins, * stays within a folder, and what has no role is said", async () => {
  const source = makeSource("assigned", {
    "a.js": "1",
    "lib/b.js": "2",
    "lib/deep/c.js": "3",
    "doc/d.md": "4",
  });
  const assign = ["**=Server", "assigned/lib/*=Server/Web", "assigned/doc/**="].flatMap((rule) => [
    "--assign",
    rule,
  ]);
  const loaded = await load(source, "--module", "ASSIGNED", "--version", "1", ...assign);
  assert.equal(loaded.undistributed, 1);
  const files = await listed("assigned/**");
  const targets = [...files]
    .map(([path, file]) => [path.slice("assigned/".length), file.targets.join()])
    .sort();
  assert.deepEqual(targets, [
    ["a.js", "role:Server"],
    ["doc/d.md", ""],
    ["lib/b.js", "role:Server/Web"],
    ["lib/deep/c.js", "role:Server"],
  ]);
});

test("a path that was assigned before it was loaded is `never loaded`, then belongs where it should", async () => {
  const assign = await run("files", "assign", "custom/new.txt=Server/Web");
  assert.equal(assign.status, 0, assign.stderr);
  assert.equal(assign.stdout, "custom/new.txt\n");
  const source = makeSource("custom", { "new.txt": "new" });
  const shown = documentOf<LoadDocument>(
    await run("load", source, "--kind", "custom", "--dry-run", "--json"),
  );
  assert.equal(shown.statuses["never-loaded"], 1);
  await load(source, "--kind", "custom");
  assert.deepEqual((await listed("custom/*")).get("custom/new.txt")?.targets, ["role:Server/Web"]);
});

test("set-user-id bits are dropped and said, excluded and empty folders too", async () => {
  const source = makeSource("bits", { tool: "x", "skip/me": "x" });
  chmodSync(join(source, "bits/tool"), 0o4755);
  mkdirSync(join(source, "bits/empty"));
  const args = ["--module", "BITS", "--version", "1", "--yes", "--exclude", "bits/skip"];
  const end = await run("load", source, ...args);
  assert.equal(end.status, 0, end.stderr);
  assert.match(end.stderr, /dropped from bits\/tool/);
  assert.match(end.stderr, /left out by --exclude: bits\/skip\//);
  assert.match(end.stderr, /empty folders are not loaded: bits\/empty\//);
  const files = await listed("bits/**");
  assert.deepEqual([...files.keys()], ["bits/tool"]);
  assert.equal(files.get("bits/tool")?.mode, 0o755);
});

test("a base directory one level too high is warned of", async (context) => {
  const files = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`f${index}`, String(index)]));
  const source = makeSource("base", files);
  await load(source, "--module", "BASE", "--version", "1");
  const parent = temporaryDirectory(context);
  cpSync(source, join(parent, "out"), { recursive: true });
  const end = await run("load", parent, "--module", "BASE", "--version", "2", "--dry-run");
  assert.equal(end.status, 0);
  assert.match(end.stderr, /warning: the directory looks too high: 10 files .* below out\//);
});

test("a load of many files and a large one arrives byte for byte, and equal contents travel once", async () => {
  const files: Record<string, string> = {};
  for (let i = 0; i < 700; i++) files[`d${i % 17}/f${i}`] = `file ${i % 350}\n`.repeat(i % 40);
  const source = makeSource("many", files);
  const large = Buffer.alloc(9 * 1024 * 1024, "compressible text, ");
  writeFileSync(join(source, "many/large.txt"), large);
  const noise = Buffer.from(
    Array.from({ length: 160 * 1024 }, (_, i) => createHash("sha256").update(String(i)).digest("hex")).join(
      "",
    ),
    "hex",
  );
  writeFileSync(join(source, "many/noise.bin"), noise);
  await load(source, "--module", "MANY", "--version", "1", "--assign", "**=Server/Many");
  const target = join(directory, "exported");
  const end = await run("files", "export", target, "--role", "Server/Many", "--match", "many/**");
  assert.equal(end.status, 0, end.stderr);
  const names = readdirSync(join(source, "many"), { recursive: true, encoding: "utf8" });
  for (const name of names) {
    const from = join(source, "many", name);
    if (statSync(from).isDirectory()) continue;
    assert.ok(readFileSync(from).equals(readFileSync(join(target, "many", name))), name);
  }
  assert.deepEqual(readdirSync(join(target, "many"), { recursive: true }).length, names.length);
});

/** Stands between a command and the hub and hands everything on. `meddle` says true where it takes the answer itself. */
async function standBetween(
  context: TestContext,
  meddle: (call: string, incoming: IncomingMessage, handed: ClientRequest) => boolean,
): Promise<Readonly<Record<string, string>>> {
  const between = createServer((incoming, answer) => {
    const { method = "GET", url = "/", headers } = incoming;
    const handed = request(new URL(url, hub().url), { method, headers, agent: false });
    if (!meddle(`${method} ${url}`, incoming, handed))
      handed.once("response", (answered) => {
        answer.writeHead(answered.statusCode ?? 500, answered.headers);
        answered.pipe(answer);
      });
    handed.on("error", () => answer.destroy());
    // What was broken off is no whole request for the hub either.
    incoming.once("close", () => {
      if (!incoming.complete) handed.destroy();
    });
    incoming.pipe(handed);
  });
  // A command may be busy for long between two requests.
  between.keepAliveTimeout = 0;
  await new Promise<void>((resolve) => between.listen(0, "127.0.0.1", resolve));
  context.after(() => between.close());
  const { port } = between.address() as AddressInfo;
  return { ...hub().env, LOCKSTEP_HUB: `http://127.0.0.1:${port}` };
}

/** Moments of a load: its files are found, they are read, the large one is on its way. */
for (const moment of ["GET /v1/settings", "POST /v1/loads/compare", "POST /v1/loads"])
  test(`a file that changes while it is loaded ends the load, and nothing of it is left (${moment})`, async (context) => {
    const source = makeSource("changing", { quiet: "x" });
    const target = join(source, "changing/large");
    // More than what stands between loader and hub can hold, and not to be made smaller.
    writeFileSync(target, randomBytes(64 * 1024 * 1024));
    let isChanged = false;
    const change = () => {
      if (!isChanged) appendFileSync(target, "changed");
      isChanged = true;
    };
    const env = await standBetween(context, (call, incoming) => {
      if (call !== moment) return false;
      let bytes = 0;
      if (call !== "POST /v1/loads") change();
      else
        incoming.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > 1024 * 1024) change();
        });
      return false;
    });
    const args = ["load", source, "--module", "CHANGING", "--version", "1", "--yes", "--json"];
    const result = await ended(start(args, { env }));
    assert.ok(isChanged);
    assert.equal(result.status, 1, result.stderr);
    assert.equal(documentOf<ErrorDocument>(result).error.code, "LOAD_SOURCE_CHANGED");
    assert.equal((await listed("changing/**")).size, 0);
  });

test("a load that is interrupted leaves nothing behind", async () => {
  const source = makeSource("stopped", {});
  mkdirSync(join(source, "stopped"), { recursive: true });
  for (let i = 0; i < 40; i++) {
    const noise = Buffer.alloc(1024 * 1024);
    for (let at = 0; at < noise.length; at += 32)
      createHash("sha256").update(`${i} ${at}`).digest().copy(noise, at);
    writeFileSync(join(source, `stopped/f${i}`), noise);
  }
  const args = ["load", source, "--module", "STOPPED", "--version", "1", "--yes"];
  const child = start(args, { env: hub().env });
  const end = ended(child);
  // As soon as it says what it compares, the sending begins.
  let said = "";
  await new Promise<void>((resolve) => {
    child.stderr?.on("data", (text: string) => {
      said += text;
      if (said.includes("STOPPED 1")) resolve();
    });
  });
  child.kill("SIGINT");
  const result = await end;
  if (result.status !== 0) {
    assert.equal(result.status, 130, result.stderr);
    assert.match(result.stderr, /^error INTERRUPTED: /m);
    // Else the hub had everything, and it is said that it may have taken it.
    if (/^error INTERRUPTED: stopped by/m.test(result.stderr))
      assert.equal((await listed("stopped/**")).size, 0);
  }
  assert.equal((await load(source, ...args.slice(2, -1))).loaded, true);
});

test("a load that is stopped when everything is sent says that the hub may have taken it", async (context) => {
  const source = makeSource("sent", { a: "sent" });
  const args = ["load", source, "--module", "SENT", "--version", "1", "--assign", "**=Server", "--yes"];
  let child: ReturnType<typeof start> | null = null;
  // The hub's answer to the load never comes back.
  const env = await standBetween(context, (call, _, handed) => {
    if (call !== "POST /v1/loads") return false;
    // When all of it is there: it may begin before the load is taken.
    handed.once("response", (answered) => answered.resume().once("end", () => child?.kill("SIGINT")));
    return true;
  });
  child = start(args, { env });
  const result = await ended(child);
  assert.equal(result.status, 130, result.stderr);
  assert.match(
    result.stderr,
    /^error INTERRUPTED: everything was sent, and the hub may have taken it: stopped by SIGINT$/m,
  );
  assert.match(result.stderr, /lockstep revision list/);
  assert.equal((await listed("sent/**")).size, 1);
});

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import type { RevisionDocument } from "@lockstep/protocol";
import { startTestHub } from "../cli/hub.ts";
import { lockstep, temporaryDirectory } from "../cli/lockstep.ts";

/**
 * An unmodified nginx as a caching proxy before the hub, set up as docs/operating/relay.md says: what is immutable comes out
 * of its cache, the software revision never does.
 */
const NGINX = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].find((path) => existsSync(path));
const DOCUMENT = resolve(import.meta.dirname, "../../docs/operating/relay.md");

interface Line {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly cache: string;
}

/** A socket that listens, for nginx to take over: a port that was free a moment ago may be somebody else's by now. */
async function listeningSocket(): Promise<{ server: Server; port: number; descriptor: number }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  return { server, port, descriptor: fd };
}

/** The configuration of the document, with the addresses of this test and without TLS. */
function configuration(directory: string, hub: string, port: number): string {
  const block = /```nginx\n([\s\S]*?)```/.exec(readFileSync(DOCUMENT, "utf8"))?.[1] ?? "";
  const host = new URL(hub).host;
  const server = block
    .replace("/var/cache/nginx/lockstep", join(directory, "kept"))
    .replace("listen 8702 ssl;", `listen 127.0.0.1:${port};`)
    .replaceAll(/^ *ssl_.*\n/gm, "")
    .replaceAll("https://hub.example:8700", `http://${host}`)
    .replaceAll("hub.example:8700", host);
  const place = (name: string) => `${name}_temp_path ${join(directory, name)};`;
  return `
${process.getuid?.() === 0 ? "user root;" : ""}
daemon off; worker_processes 1; pid ${join(directory, "pid")}; error_log ${join(directory, "error.log")} warn;
events { worker_connections 256; }
http {
  log_format lines '$request_method $uri $status $upstream_cache_status';
  access_log ${join(directory, "access.log")} lines;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(place).join("\n  ")}
  ${server}
}
`;
}

async function startNginx(
  t: Pick<TestContext, "after">,
  directory: string,
  hub: string,
): Promise<{ url: string; lines: () => Line[] }> {
  mkdirSync(directory);
  const { server, port, descriptor } = await listeningSocket();
  const file = join(directory, "nginx.conf");
  writeFileSync(file, configuration(directory, hub, port));
  execFileSync(NGINX ?? "", ["-t", "-p", directory, "-c", file], { stdio: "pipe" });
  const child: ChildProcess = spawn(NGINX ?? "", ["-p", directory, "-c", file], {
    stdio: ["inherit", "inherit", "inherit", descriptor],
    // Sockets that it finds open, as at the change of its program.
    env: { ...process.env, NGINX: "3;" },
  });
  t.after(async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  });
  // Who connects from now on is answered by nginx, as soon as it can.
  server.close();
  const lines = () =>
    readFileSync(join(directory, "access.log"), "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .map(([method = "", path = "", status = "", cache = ""]) => ({
        method,
        path,
        status: Number(status),
        cache,
      }));
  return { url: `http://127.0.0.1:${port}`, lines };
}

/** Waits until the hub has made the step to its second revision: whoever comes before that fetches contents whole, alone. */
async function stepMade(hub: string): Promise<void> {
  const manifests = [1, 2].map(async (number) => {
    const answer = await fetch(`${hub}/v1/revisions/${number}`);
    return ((await answer.json()) as RevisionDocument).manifests;
  });
  const [from, to] = (await Promise.all(manifests)).map(
    (all) => all.find(({ target }) => target === "role:Server")?.sha256,
  );
  for (let status = 0; status !== 200; ) {
    const answer = await fetch(`${hub}/v1/steps/${from}/${to}?wait=30`);
    await answer.arrayBuffer();
    ({ status } = answer);
    assert.ok(status === 200 || status === 503, `${status}`);
  }
}

test("an ordinary caching proxy gives what is immutable out of its cache, and no old software revision", {
  skip: NGINX === undefined ? "nginx is not on this machine" : false,
}, async (t) => {
  const directory = temporaryDirectory(t);
  const hub = await startTestHub(directory);
  t.after(() => hub.stop());
  const nginx = await startNginx(t, join(directory, "nginx"), hub.url);
  const env = { ...hub.env, LOCKSTEP_RELAY: nginx.url };
  const done = async (...args: string[]) => {
    const end = await lockstep(args, { env });
    assert.equal(end.status, 0, end.stderr);
    return end;
  };
  const source = join(directory, "source");
  mkdirSync(join(source, "app"), { recursive: true });
  const large = (salt: string) => Array.from({ length: 150_000 }, (_, n) => `${salt}-${n * 7919}`).join("\n");
  const load = async (version: string, salt: string) => {
    writeFileSync(join(source, "app/large.txt"), `${large("same")}\n${salt}\n${large(salt)}`);
    writeFileSync(join(source, "app/small.txt"), salt);
    await done("load", source, "--module", "M", "--version", version, "--assign", "app/**=Server", "--yes");
  };
  const places = [1, 2, 3].map((n) => join(directory, `i${n}`));

  await load("1", "one");
  for (const place of places) await done("install", place, "--role", "Server");
  await load("2", "two");
  await stepMade(hub.url);
  for (const place of places) {
    const { status } = await lockstep(["check", place], { env });
    assert.equal(status, 10, "the move is seen at once");
  }
  for (const place of places) {
    await done("update", place);
    assert.equal(readFileSync(join(place, "app/small.txt"), "utf8"), "two");
    assert.equal((await lockstep(["check", place], { env })).status, 0);
  }

  const lines = nginx.lines();
  const of = (pattern: RegExp) => lines.filter(({ path, status }) => pattern.test(path) && status < 300);
  for (const [what, pattern] of [
    ["contents", /^\/v1\/files\//],
    ["manifests", /^\/v1\/manifests\/sha256\//],
    ["numbered metadata", /^\/v1\/trust\/\d+\.(snapshot|targets)\.json$/],
  ] as const) {
    const paths = new Set(of(pattern).map(({ path }) => path));
    assert.ok(paths.size > 0, what);
    for (const path of paths) {
      const seen = lines.filter((line) => line.path === path).map(({ cache }) => cache);
      assert.deepEqual(new Set(seen.slice(1)), new Set(["HIT"]), `${what}: ${path} ${seen.join(" ")}`);
    }
  }
  const kept = lines.filter(({ cache }) => cache === "HIT").map(({ path }) => path);
  assert.deepEqual(
    kept.filter((path) => /revision$|timestamp|bundle|installations|orders/.test(path)),
    [],
  );
  const logs = places.map((place) => readFileSync(join(place, "update.log"), "utf8"));
  for (const log of logs) assert.doesNotMatch(log, /was left for the hub/);
});

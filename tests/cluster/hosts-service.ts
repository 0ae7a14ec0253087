import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";

/**
 * A service as one has it: it answers clients, changes something outside under its token, and keeps settings.
 * Arguments: port, address of the receiver (none: it writes nothing), file for what was acknowledged; `{node}` in it is the
 * node.
 */
const { LOCKSTEP_NODE: node = "?", LOCKSTEP_TERM: term = "0", LOCKSTEP_DATA: data } = process.env;
const [port, receiver, acknowledged] = process.argv.slice(2).map((word) => word.replaceAll("{node}", node));
const WRITE_MS = 50;
const LIMIT_MS = 1_000;

createServer((_, response) => {
  response.setHeader("connection", "close");
  response.end(node);
}).listen({ port: Number(port), host: "::" });

if (data !== undefined) {
  mkdirSync(join(data, "settings"), { recursive: true });
  writeFileSync(join(data, "settings/state.json"), JSON.stringify({ term, node, pid: process.pid }));
}

let number = 0;
if (receiver !== undefined) write(receiver);

/** One after the other; each names the token, and counts as done when the receiver has said so. */
function write(to: string): void {
  const text = JSON.stringify({
    token: Number(term),
    node,
    writer: `${node}.${process.pid}`,
    number: number++,
  });
  const call = request(to, { method: "POST", timeout: LIMIT_MS, agent: false }, (answer) => {
    answer.resume();
    answer.once("close", () => {
      if (answer.statusCode === 200 && acknowledged !== undefined) appendFileSync(acknowledged, `${text}\n`);
      setTimeout(write, WRITE_MS, to);
    });
  });
  call.once("timeout", () => call.destroy());
  call.once("error", () => setTimeout(write, WRITE_MS, to));
  call.end(text);
}

process.once("SIGTERM", () => process.exit(0));

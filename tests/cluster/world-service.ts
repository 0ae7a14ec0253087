import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { hostname } from "node:os";

/**
 * A service such as somebody would put on a virtual server: it says on which computer it believes to run, keeps a setting
 * in its data directory, and writes a log where its configuration file says. Its argument: the configuration file.
 */
const [, , file = ""] = process.argv;
const text = readFileSync(file, "utf8");
const port = Number(/^Port = (\d+)$/m.exec(text)?.[1]);
/** As the original's log writer names it. */
const output = /^OutPutFile = "(.+)"$/m.exec(text)?.[1];
const data = process.env.LOCKSTEP_DATA ?? "";
/** Found by convention: whatever lies here follows the virtual server. */
const kept = `${data}/settings/kept.txt`;

function readKept(): string | null {
  try {
    return readFileSync(kept, "utf8");
  } catch {
    return null;
  }
}

const log = (what: string) => {
  if (output === undefined) return;
  const { LOCKSTEP_NODE: node, LOCKSTEP_TERM: term } = process.env;
  appendFileSync(output, `${JSON.stringify({ node, term: Number(term), what })}\n`);
};

// What it kept is read once, before it serves: settings that came later would be too late.
const atStart = readKept();
const server = createServer((request, response) => {
  response.setHeader("connection", "close");
  if (request.method === "PUT") {
    mkdirSync(`${data}/settings`, { recursive: true });
    writeFileSync(kept, decodeURIComponent((request.url ?? "/").slice(1)));
    log(`kept ${request.url}`);
    response.end();
    return;
  }
  response.end(
    JSON.stringify({
      ...{ hostname: hostname(), computerName: process.env.COMPUTERNAME, node: process.env.LOCKSTEP_NODE },
      ...{ term: Number(process.env.LOCKSTEP_TERM), data, atStart },
    }),
  );
});
server.listen(port, "0.0.0.0", () => log("begins"));
process.on("SIGTERM", () => {
  log("ends");
  process.exit(0);
});

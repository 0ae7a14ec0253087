import { createServer } from "node:http";
import { hostname } from "node:os";

// A service that says on which host it runs, for the probe. Its argument is the port; it listens on every address, so that
// it can be there before the address is.
const server = createServer((_, response) => {
  response.setHeader("connection", "close");
  response.end(hostname());
});
server.listen({ port: Number(process.argv[2]), host: "::" }, () => process.stdout.write("ready\n"));
// Ends with whoever started it.
process.stdin.on("end", () => process.exit(0)).resume();

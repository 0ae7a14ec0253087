import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/**
 * Connections of the status page, so that whoever opens many keeps nobody else out.
 *
 * A page that took a fixed number of connections and no more would be closed by anyone who opens that many and says
 * nothing. So nobody is refused for a connection that does nothing: where an address has too many, or all together have,
 * the one that has been idle for longest gives way to the new one. Only where every single one is being answered the new
 * one is.
 */
const OF_ADDRESS_MAX = 40;
const ALL_MAX = 200;

export function boundConnections(server: Server): void {
  const open = new Map<Socket, { readonly address: string; answering: number }>();
  server.on("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const same = [...open].filter(([, other]) => other.address === address);
    const full = same.length >= OF_ADDRESS_MAX ? same : open.size >= ALL_MAX ? [...open] : [];
    if (full.length > 0) {
      // In the order in which they came, or were last answered.
      const idle = full.find(([, { answering }]) => answering === 0);
      if (idle === undefined) {
        socket.destroy();
        return;
      }
      open.delete(idle[0]);
      idle[0].destroy();
    }
    open.set(socket, { address, answering: 0 });
    socket.once("close", () => open.delete(socket));
  });
  server.on("request", ({ socket }: IncomingMessage, response: ServerResponse) => {
    const entry = open.get(socket);
    if (entry === undefined) return;
    entry.answering += 1;
    response.once("close", () => {
      entry.answering -= 1;
      if (open.delete(socket) && !socket.destroyed) open.set(socket, entry);
    });
  });
}

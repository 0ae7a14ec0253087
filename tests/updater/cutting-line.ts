import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";

/** A line between an installation and a hub that counts what passes towards the installation, and breaks when it is told to. */
export class CuttingLine {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Bytes until the next cut; null: it is not cut. */
  next: (() => number) | null = null;
  /** Bytes in a second; null: as fast as it goes. */
  rate: number | null = null;
  bytes = 0;
  cuts = 0;
  #held: PromiseWithResolvers<void> | null = null;

  /** Where it leads; another address holds for connections that begin later. */
  hub: string;

  private constructor(hub: string) {
    this.hub = hub;
    this.#server = createServer((client) => this.#join(client, Number(new URL(this.hub).port)));
  }

  /** A line to the hub at this address, for as long as the test. */
  static async to(hub: string, t: TestContext): Promise<CuttingLine> {
    const line = new CuttingLine(hub);
    await new Promise<void>((resolve) => line.#server.listen(0, "127.0.0.1", resolve));
    t.after(async () => {
      for (const socket of line.#sockets) socket.destroy();
      await new Promise((resolve) => line.#server.close(resolve));
    });
    return line;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Lets nothing pass towards the installation until it is told to again. */
  hold(): void {
    this.#held = Promise.withResolvers<void>();
  }

  release(): void {
    this.#held?.resolve();
    this.#held = null;
  }

  /** Breaks all that goes over it; what is on its way is lost. */
  breakNow(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(client: Socket, port: number): void {
    const hub = connect(port, "127.0.0.1");
    const both = [client, hub];
    for (const socket of both) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        this.#sockets.delete(socket);
        for (const other of both) other.destroy();
      });
    }
    client.pipe(hub);
    let left = this.next?.() ?? Number.POSITIVE_INFINITY;
    hub.on("data", (chunk: Buffer) => {
      const piece = chunk.subarray(0, left);
      left -= piece.length;
      this.bytes += piece.length;
      const cut = left <= 0;
      if (cut) hub.pause();
      const sent = () => {
        if (!cut) return;
        this.cuts++;
        // What was sent before the cut arrives: an end, and not a reset that takes it along.
        client.end();
        hub.destroy();
      };
      const goOn = () => void (this.#held?.promise ?? Promise.resolve()).then(() => hub.resume());
      if (this.rate !== null) {
        hub.pause();
        setTimeout(goOn, (piece.length * 1000) / this.rate);
      } else if (this.#held !== null) {
        hub.pause();
        goOn();
      }
      if (!client.write(piece, sent) && !cut) {
        hub.pause();
        client.once("drain", goOn);
      }
    });
  }
}

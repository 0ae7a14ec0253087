import { once } from "node:events";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import type { Clock, Logger } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import {
  FrameReader,
  formatFrame,
  type PeerAnswer,
  type PeerLeaseEvent,
  type PeerMessage,
} from "./peer-frames.ts";

/**
 * The channel between the daemons of a cluster, for the little that does not go through the store: whether an owner that
 * has lost the store may stay, and the questions of `cluster check`. TLS with a key that all nodes share, with fresh keys
 * for each connection; whoever does not have it does not get past the handshake.
 *
 * Nothing here is waited for or kept: a message that cannot be delivered now is worth nothing later.
 */
export interface PeerChannelOptions {
  readonly node: string;
  readonly key: Buffer;
  readonly log: Logger;
  readonly clock: Clock;
  /** Who answers a hello. */
  readonly answer: () => PeerAnswer;
  /** A message for a virtual server's lease; `from`: the node that proved to have the key under this name. */
  readonly heard: (from: string, server: string, event: PeerLeaseEvent) => void;
}

// Up to TLS 1.2 the handshake with a shared key of Node needs no certificate on either side.
const CRYPTO = {
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES256-CBC-SHA384",
} as const;

const HANDSHAKE_MS = 5_000;
const IDLE_MS = 60_000;
const CONNECTIONS_MAX = 100;
/** A connection that a network swallowed would take minutes to notice it; a new one is cheap. */
const RENEWED_MS = 2_000;
/** Beyond this a peer does not read what it is sent. */
const BUFFERED_MAX = 64 * 1024;
const IDENTITY = /^lockstep:([A-Za-z0-9][A-Za-z0-9._-]{0,62})$/;

export class PeerChannel {
  readonly #options: PeerChannelOptions;
  readonly #incoming = new Set<TLSSocket>();
  readonly #names = new WeakMap<object, string>();
  readonly #outgoing = new Map<string, { readonly socket: TLSSocket; readonly openedAt: number }>();
  #server: Server | null = null;

  constructor(options: PeerChannelOptions) {
    this.#options = options;
  }

  /** Hears at `host:port` (port 0: any); returns the port. Throws NODE_LISTEN_FAILED. */
  async listen(address: string): Promise<number> {
    const { key } = this.#options;
    const server = createServer({
      ...CRYPTO,
      handshakeTimeout: HANDSHAKE_MS,
      pskIdentityHint: "lockstep",
      pskCallback: (socket, identity) => {
        const name = IDENTITY.exec(identity)?.[1];
        if (name === undefined) return null;
        this.#names.set(socket, name);
        return key;
      },
    });
    server.maxConnections = CONNECTIONS_MAX;
    server.on("secureConnection", (socket) => this.#accept(socket));
    server.on("tlsClientError", (error, socket) => {
      this.#options.log.debug("a connection was turned away", { error, peer: socket.remoteAddress });
      socket.destroy();
    });
    const { host, port } = splitAddress(address);
    try {
      server.listen(port, host);
      await once(server, "listening");
    } catch (cause) {
      throw new LockstepError("NODE_LISTEN_FAILED", `the daemon cannot hear the others at ${address}`, {
        found: cause instanceof Error ? cause.message : String(cause),
        hint: "Look whether something else has the port, and whether the address is one of this machine.",
        cause,
      });
    }
    this.#server = server;
    const bound = server.address();
    return typeof bound === "object" && bound !== null ? bound.port : port;
  }

  /** Sends something for a lease if that can be done now. */
  send(address: string, server: string, event: PeerLeaseEvent): void {
    const socket = this.#connection(address);
    if (socket.writableLength > BUFFERED_MAX) socket.destroy();
    else socket.write(formatFrame({ kind: "lease", server, event }));
  }

  async close(): Promise<void> {
    for (const socket of [...this.#incoming, ...[...this.#outgoing.values()].map((each) => each.socket)])
      socket.destroy();
    const server = this.#server;
    if (server === null) return;
    const closed = once(server, "close");
    server.close();
    await closed;
  }

  #connection(address: string): TLSSocket {
    const { node, key, clock, log } = this.#options;
    const now = clock.monotonic();
    const present = this.#outgoing.get(address);
    if (present !== undefined && !present.socket.destroyed) {
      if (now - present.openedAt < RENEWED_MS) return present.socket;
      present.socket.destroySoon();
    }
    const socket = connectPeer(address, node, key);
    this.#outgoing.set(address, { socket, openedAt: now });
    socket.on("error", (error) => log.debug("a peer does not answer", { peer: address, error }));
    socket.on("close", () => {
      if (this.#outgoing.get(address)?.socket === socket) this.#outgoing.delete(address);
    });
    this.#receive(socket, null);
    return socket;
  }

  #accept(socket: TLSSocket): void {
    const name = this.#names.get(socket);
    if (name === undefined) {
      socket.destroy();
      return;
    }
    this.#incoming.add(socket);
    socket.on("close", () => this.#incoming.delete(socket));
    socket.on("error", (error) => this.#options.log.debug("a peer left", { peer: name, error }));
    this.#receive(socket, name);
  }

  #receive(socket: TLSSocket, name: string | null): void {
    const reader = new FrameReader();
    socket.setNoDelay(true);
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const message of reader.read(chunk)) this.#take(socket, name, message);
      } catch (error) {
        this.#options.log.warn("a peer was dropped", { peer: name ?? socket.remoteAddress, error });
        socket.destroy();
      }
    });
  }

  #take(socket: TLSSocket, name: string | null, message: PeerMessage): void {
    if (message.kind === "hello") {
      if (socket.writableLength > BUFFERED_MAX) socket.destroy();
      else
        socket.write(
          formatFrame({ kind: "hello-answer", call: message.call, answer: this.#options.answer() }),
        );
      return;
    }
    // Nobody speaks for another node, and answers come on a connection of their own.
    if (message.kind === "lease" && name !== null && message.event.member === name)
      this.#options.heard(name, message.server, message.event);
    else throw new Error(`${name ?? "it"} sends what is not its own`);
  }
}

function connectPeer(address: string, node: string, key: Buffer): TLSSocket {
  const { host, port } = splitAddress(address);
  return connect({
    ...CRYPTO,
    host,
    port,
    timeout: HANDSHAKE_MS,
    pskCallback: () => ({ psk: key, identity: `lockstep:${node}` }),
    // Who has the key is one of us; there are no certificates.
    checkServerIdentity: () => undefined,
  });
}

/** `10.0.0.1:7420` or `[fd00::1]:7420`. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const at = address.lastIndexOf(":");
  return { host: address.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(address.slice(at + 1)) };
}

/** What a look at another node's daemon found. */
export interface PeerMeasurement extends PeerAnswer {
  readonly roundTripMs: number;
  /** How far its wall clock is ahead of ours, give or take half of the round trip. */
  readonly wallOffsetMs: number;
  /** By how much the rate of its clock differs from ours, as a fraction. */
  readonly rateError: number;
  /** How far the measured rate may be off: round trips over the time that was measured. */
  readonly rateUncertainty: number;
}

export interface MeasureOptions {
  readonly address: string;
  /** Our own name. */
  readonly node: string;
  readonly key: Buffer;
  /** Milliseconds of the clock by which leases are counted here. */
  readonly monotonic: () => number;
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** For how long to compare the clocks; the longer, the sharper. */
  readonly spanMs: number;
}

const EXCHANGES = 5;

/**
 * Asks another node's daemon who it is and what its clocks say, a few times over. Throws CLUSTER_KEY_DIFFERS, PEER_UNREACHABLE.
 */
export async function measurePeer(options: MeasureOptions): Promise<PeerMeasurement> {
  const { address, node, key, monotonic, clock, timeoutMs, spanMs } = options;
  const socket = connectPeer(address, node, key);
  const limit = AbortSignal.timeout(timeoutMs + spanMs);
  try {
    await once(socket, "secureConnect", { signal: limit });
    const samples: {
      readonly sentAt: number;
      readonly gotAt: number;
      readonly wall: number;
      readonly answer: PeerAnswer;
    }[] = [];
    for (let call = 0; call < EXCHANGES * 2; call++) {
      // A few at the beginning and a few at the end; of each the quickest counts.
      if (call === EXCHANGES) await clock.sleep(spanMs, limit);
      const sentAt = monotonic();
      const answer = await ask(socket, call, limit);
      samples.push({ sentAt, gotAt: monotonic(), wall: clock.now(), answer });
    }
    const quickest = (from: number) =>
      samples
        .slice(from, from + EXCHANGES)
        .reduce((best, each) => (tripOf(each) < tripOf(best) ? each : best));
    const [first, last] = [quickest(0), quickest(EXCHANGES)];
    const middle = ({ sentAt, gotAt }: { sentAt: number; gotAt: number }) => (sentAt + gotAt) / 2;
    const [ours, theirs] = [middle(last) - middle(first), last.answer.monotonicMs - first.answer.monotonicMs];
    return {
      ...last.answer,
      roundTripMs: tripOf(last),
      wallOffsetMs: last.answer.wallMs - (last.wall - tripOf(last) / 2),
      rateError: theirs / ours - 1,
      rateUncertainty: (tripOf(first) + tripOf(last)) / 2 / ours,
    };
  } catch (cause) {
    throw peerError(address, cause);
  } finally {
    socket.destroy();
  }
}

const tripOf = ({ sentAt, gotAt }: { readonly sentAt: number; readonly gotAt: number }) => gotAt - sentAt;

async function ask(socket: TLSSocket, call: number, signal: AbortSignal): Promise<PeerAnswer> {
  const reader = new FrameReader();
  socket.write(formatFrame({ kind: "hello", call }));
  for (;;) {
    const [chunk] = (await once(socket, "data", { signal })) as [Buffer];
    for (const message of reader.read(chunk))
      if (message.kind === "hello-answer" && message.call === call) return message.answer;
  }
}

function peerError(address: string, cause: unknown): LockstepError {
  const found = cause instanceof Error ? cause.message : String(cause);
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (/ALERT|DECRYPT|BAD_RECORD|SSL/.test(code))
    return new LockstepError(
      "CLUSTER_KEY_DIFFERS",
      `the daemon at ${address} has another key than this node`,
      {
        found,
        hint: "Copy the cluster's key from one node to the other.",
        cause,
      },
    );
  return new LockstepError("PEER_UNREACHABLE", `the daemon at ${address} does not answer`, {
    found,
    hint: "Look whether `lockstep node` runs there and whether this machine reaches it at that address.",
    cause,
  });
}

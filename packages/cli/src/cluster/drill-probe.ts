import { connect } from "node:net";
import type { DrillProbe, VirtualServerDefinition } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";

/** What the client of a drill asks: a TCP connection, or over one an answer of HTTP that is no error of the server. */
export interface ProbeTarget {
  readonly kind: "tcp" | "http";
  readonly host: string;
  readonly port: number;
  /** The path of HTTP, and the host as the URL names it. */
  readonly path: string;
  readonly name: string;
}

const LOOPBACK = /^(?:localhost|127\.[0-9.]+|::1|0\.0\.0\.0|::)$/;

/** `http://HOST:PORT/PATH`, `tcp://HOST:PORT` or `HOST:PORT`. Throws USAGE. */
export function readProbeTarget(text: string): ProbeTarget {
  const url = URL.parse(/^[a-z]+:\/\//.test(text) ? text : `tcp://${text}`);
  const kind = url?.protocol === "http:" ? "http" : url?.protocol === "tcp:" ? "tcp" : null;
  const port = Number(url?.port || (kind === "http" ? 80 : 0));
  if (url === null || kind === null || url.hostname === "" || port === 0)
    throw new LockstepError("USAGE", "--probe takes what a client reaches the virtual server by", {
      expected: "HOST:PORT, tcp://HOST:PORT or http://HOST:PORT/PATH",
      found: text,
    });
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return { kind, host, port, path: `${url.pathname || "/"}${url.search}`, name: url.host };
}

/** The virtual server's address, and the port that its service is known to be well by; null: not both are known. */
export function findProbeTarget({ resources }: VirtualServerDefinition): ProbeTarget | null {
  const address = resources
    .filter(({ type }) => type === "ip-address")
    .map(({ settings }) => String(settings.address ?? "").split("/")[0])
    .find((text) => text !== undefined && text !== "");
  for (const { type, settings } of resources) {
    if (type !== "generic-service") continue;
    const { probeHttp, probeTcp } = settings;
    const text =
      typeof probeHttp === "string" && probeHttp.startsWith("http:")
        ? probeHttp
        : typeof probeTcp === "string"
          ? `tcp://${probeTcp.includes(":") ? probeTcp : `127.0.0.1:${probeTcp}`}`
          : null;
    if (text === null) continue;
    const target = readProbeTarget(text);
    return address !== undefined && LOOPBACK.test(target.host) ? { ...target, host: address } : target;
  }
  return null;
}

export const describeTarget = ({ kind, host, port, path }: ProbeTarget): string => {
  const place = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  return kind === "http" ? `http://${place}${path}` : `TCP ${place}`;
};

const EVERY_MS = 20;
/** Below the second after which TCP sends its first packet again, so that no late answer counts. */
const LIMIT_MS = 500;
const KEPT_MAX = 200_000;

/**
 * A client that asks on an absolute schedule, every time by a new connection, and never waits for an answer with its next
 * question: one that waited would miss the outage that it measures.
 */
export class ClientProbe {
  readonly records: DrillProbe[] = [];
  readonly #target: ProbeTarget;
  readonly #now: () => number;
  readonly #begun: number;
  #asked = 0;
  #open = 0;
  #timer: NodeJS.Timeout | undefined;
  #drained: (() => void) | null = null;

  constructor(target: ProbeTarget, now: () => number) {
    this.#target = target;
    this.#now = now;
    this.#begun = now();
    this.#turn();
  }

  /** Whether each of the last questions has its answer. */
  isAnswering(questions: number): boolean {
    const last = this.records.slice(-questions);
    return last.length === questions && last.every(({ isAnswered }) => isAnswered);
  }

  /** No further question; resolves when the last has its answer or its limit. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#open > 0)
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
  }

  #turn(): void {
    // Behind time it asks as often as it should have: the schedule is what is measured against.
    for (; this.#asked * EVERY_MS <= this.#now() - this.#begun; this.#asked++) this.#ask();
    this.#timer = setTimeout(
      () => this.#turn(),
      Math.max(0, this.#begun + this.#asked * EVERY_MS - this.#now()),
    );
  }

  #ask(): void {
    const { kind, host, port, path, name } = this.#target;
    const sentAt = this.#now();
    let isDone = false;
    this.#open += 1;
    const socket = connect({ host, port });
    const end = (isAnswered: boolean) => {
      if (isDone) return;
      isDone = true;
      clearTimeout(limit);
      socket.destroy();
      if (this.records.length < KEPT_MAX) this.records.push({ sentAt, doneAt: this.#now(), isAnswered });
      this.#open -= 1;
      if (this.#open === 0) this.#drained?.();
    };
    const limit = setTimeout(() => end(false), LIMIT_MS);
    let text = "";
    socket.setEncoding("latin1");
    socket.on("connect", () => {
      if (kind === "tcp") end(true);
      else socket.write(`GET ${path} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`);
    });
    socket.on("data", (chunk: string) => {
      text += chunk;
      const [, status] = /^HTTP\/1\.[01] ([1-5])\d\d/.exec(text) ?? [];
      if (status !== undefined) end(status !== "5");
    });
    socket.on("error", () => end(false)).on("close", () => end(false));
  }
}

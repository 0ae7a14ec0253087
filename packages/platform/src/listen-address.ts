import { isIP } from "node:net";
import { LockstepError } from "@lockstep/protocol/wire";

export interface ListenAddress {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

/**
 * So many may stand at the door while hub or relay is busy, if the system allows as many; of those beyond some are cut off.
 * After a restart all services and installations come in the same second.
 */
export const LISTEN_BACKLOG = 4_096;

/** Reads `HOST:PORT`, `:PORT` or `PORT`; without a host it is loopback. Throws USAGE. */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:(.*):)?(\d{1,5})$/.exec(text.trim());
  const host = (match?.[1] ?? "").replace(/^\[|\]$/g, "") || "127.0.0.1";
  const port = Number(match?.[2] ?? Number.NaN);
  if (!(port <= 65_535) || /[\s/]/.test(host))
    throw new LockstepError("USAGE", `${text} is no address to listen on`, {
      expected: "HOST:PORT, as 127.0.0.1:8700 or [::]:8700",
      found: text === "" ? "an empty text" : text,
      hint: "Give the address by --listen HOST:PORT; port 0 takes any free one.",
    });
  return { host, port };
}

/** The address as others write it. */
export function formatUrl(address: ListenAddress, tls: boolean): string {
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return `${tls ? "https" : "http"}://${host}:${address.port}`;
}

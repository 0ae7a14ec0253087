import { isIP } from "node:net";
import { LockstepError } from "@lockstep/protocol";

export interface ListenAddress {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

export const DEFAULT_LISTEN = "127.0.0.1:8700";

/** Reads `HOST:PORT`, `:PORT` or `PORT`; without a host it is loopback. Throws USAGE. */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:(.*):)?(\d{1,5})$/.exec(text.trim());
  const host = (match?.[1] ?? "").replace(/^\[|\]$/g, "") || "127.0.0.1";
  const port = Number(match?.[2] ?? Number.NaN);
  if (!(port <= 65_535) || /[\s/]/.test(host))
    throw new LockstepError("USAGE", `${text} is no address to listen on`, {
      expected: "HOST:PORT, as 127.0.0.1:8700 or [::]:8700",
      found: text,
    });
  return { host, port };
}

/** Whether only this machine can reach the address. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** Refuses to show anything to other machines in the clear or to whoever asks. Throws HUB_LISTEN_REFUSED. */
export function checkListen(
  { host }: ListenAddress,
  protection: { readonly token: boolean; readonly tls: boolean },
): void {
  if (isLoopback(host) || (protection.token && protection.tls)) return;
  throw new LockstepError("HUB_LISTEN_REFUSED", `the hub does not listen on ${host} without protection`, {
    expected: "a token, and a certificate with its key",
    found: [protection.token ? null : "no token (--dev)", protection.tls ? null : "no certificate"]
      .filter((lack) => lack !== null)
      .join(", "),
    hint: "Give --tls-cert and --tls-key and leave out --dev, or listen on 127.0.0.1.",
  });
}

/** The address as others write it. */
export function formatUrl(address: ListenAddress, tls: boolean): string {
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return `${tls ? "https" : "http"}://${host}:${address.port}`;
}

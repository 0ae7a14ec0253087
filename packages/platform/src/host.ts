import { isIP } from "node:net";
import { hostname } from "node:os";

/** The name under which this machine is known, without its domain, in lower case: what reports and locks show. */
export function hostName(): string {
  return (hostname().split(".")[0] ?? "").toLowerCase() || "localhost";
}

/** Whether only this machine can be reached at an address, or reach it. IPv6 addresses with or without brackets. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase().replace(/^\[|\]$/g, "");
  return name === "localhost" || name === "::1" || (isIP(name) === 4 && name.startsWith("127."));
}

/**
 * Whether a Host header means this machine, whatever the port: somebody may look through a tunnel. A page of a stranger
 * whose name is made to lead to 127.0.0.1 (DNS rebinding) comes with the stranger's name.
 */
export function isLoopbackHeader(header: string | undefined): boolean {
  const match = /^(\[[0-9a-f:.]+\]|[^:/?#@\s]+)(?::\d{1,5})?$/i.exec(header ?? "");
  return match !== null && isLoopback(match[1] ?? "");
}

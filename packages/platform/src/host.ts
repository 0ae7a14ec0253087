import { hostname } from "node:os";

/** The name under which this machine is known, without its domain, in lower case: what reports and locks show. */
export function hostName(): string {
  return (hostname().split(".")[0] ?? "").toLowerCase() || "localhost";
}

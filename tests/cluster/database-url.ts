import type { TestDatabase } from "../support/postgres.ts";

/** The address of a test's database as other processes take it: a URL, also for a socket in a directory. */
export function urlOf(address: TestDatabase["address"]): string {
  if ("connectionString" in address) return address.connectionString;
  const { host, port, user, password, database } = address;
  const account = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`;
  return `postgres://${account}@/${database}?host=${encodeURIComponent(host)}&port=${port}`;
}

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { chmod, link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Environment } from "../config/load.ts";
import type { StatusAuthentication } from "../config/types.ts";

/** Who may see the status page: `null` is everybody who can reach it. */
export type Credentials = { readonly user: string; readonly password: () => Promise<string | null> } | null;

export interface CredentialsOptions {
  readonly authentication: StatusAuthentication | null;
  /** Whether this machine alone can reach the page. */
  readonly loopback: boolean;
  readonly stateDirectory: string;
  readonly environment: Environment;
  /** Told the file in which a made-up password is. Never the password. */
  readonly onMadeUp: (file: string) => void;
}

export const MADE_UP_FILE = "http-password";
export const MADE_UP_USER = "lockstep";

/**
 * The credentials of the status page. Beyond this machine there always are some: where none are configured, a random
 * password in a file of mode 0600, made once and kept. Throws what the system throws when that cannot be written.
 */
export async function findCredentials(options: CredentialsOptions): Promise<Credentials> {
  const { authentication, loopback, stateDirectory, environment, onMadeUp } = options;
  if (authentication !== null) {
    const { user, password } = authentication;
    if ("file" in password) return { user, password: () => readPassword(password.file) };
    return { user, password: () => Promise.resolve(environment[password.environment] || null) };
  }
  if (loopback) return null;
  const file = join(stateDirectory, MADE_UP_FILE);
  if ((await readPassword(file)) === null) await makeUp(stateDirectory, file);
  onMadeUp(file);
  return { user: MADE_UP_USER, password: () => readPassword(file) };
}

/** The first line; null when there is none, and then nobody gets in. */
export async function readPassword(file: string): Promise<string | null> {
  try {
    return (await readFile(file, "utf8")).split(/\r?\n/, 1)[0] || null;
  } catch {
    return null;
  }
}

async function makeUp(directory: string, file: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`;
  await writeFile(temporary, `${randomBytes(18).toString("base64url")}\n`, { mode: 0o600, flag: "wx" });
  try {
    await rm(file, { force: true });
    await link(temporary, file);
    await chmod(file, 0o600);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Compared as digests under this key, so that neither length nor beginning of the right one can be measured. */
const KEY = randomBytes(32);
const digest = (text: string) => createHmac("sha256", KEY).update(text).digest();

/** Whether an Authorization header (RFC 7617) names this user and password. Both are compared, whatever the first says. */
export function isAuthorized(header: string | undefined, user: string, password: string): boolean {
  const encoded = /^Basic +([A-Za-z0-9+/=]{1,4096})$/i.exec(header ?? "")?.[1] ?? "";
  const decoded = Buffer.from(encoded, "base64").toString("utf8");
  const colon = decoded.indexOf(":");
  const sameUser = timingSafeEqual(digest(decoded.slice(0, Math.max(colon, 0))), digest(user));
  const samePassword = timingSafeEqual(digest(decoded.slice(colon + 1)), digest(password));
  return colon >= 0 && sameUser && samePassword;
}

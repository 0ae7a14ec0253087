import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { identify, type ProcessIdentity } from "@lockstep/platform";
import { LAST_RESORT_MS, untilEnded } from "../guard/guard-client.ts";
import { findByEnvironment, killAll } from "../guard/service-group.ts";

/**
 * What a former life of this daemon left of a virtual server: its guard, which may still be ending things, and services
 * that nobody guards any more. Only when both are gone may this life begin: an old guard that is late would take away
 * what we bring online.
 */
const FILE = "guard.json";
/** A guard whose daemon is gone needs a second or two; one that is frozen is killed, and its last resort does the rest. */
const GUARD_MS = 10_000;

const NAME = "LOCKSTEP_SERVICE_OF";

/** The entry of a service's environment by which it is found again: the resource's directory is nobody else's. */
export const lifeEntry = (resourceDirectory: string) => ({ [NAME]: resourceDirectory });

/** The whole entry, as the processes of a resource have it in their environment. */
export const servicesOf = (resourceDirectory: string): string => `${NAME}=${resourceDirectory}\0`;

/** Kills what was launched for this resource by whatever life; resolves when nothing of it is left. */
export const endServicesOf = (resourceDirectory: string): Promise<void> =>
  killAll(() => findByEnvironment(servicesOf(resourceDirectory)));

/** Notes the guard of this life and who covers for it, for the next one. */
export function noteGuard(directory: string, pids: readonly (number | null | undefined)[]): void {
  const guards = pids.map((pid) => (typeof pid === "number" ? identify(pid) : null));
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(join(directory, FILE), JSON.stringify(guards.filter((guard) => guard !== null)), {
    mode: 0o600,
  });
}

/** The guards that a former life noted. To be read before this life notes its own. */
export function formerGuards(directory: string): readonly ProcessIdentity[] {
  try {
    const noted: unknown = JSON.parse(readFileSync(join(directory, FILE), "utf8"));
    return Array.isArray(noted) ? noted.filter(isIdentity) : [];
  } catch {
    // None, or torn by a crash: what it guarded is found by its mark.
    return [];
  }
}

/** Resolves when nothing of a former life is left. */
export async function endFormerLife(directory: string, guards: readonly ProcessIdentity[]): Promise<void> {
  const [guard, ...covers] = guards;
  if (guard !== undefined) await untilEnded(guard, GUARD_MS);
  for (const cover of covers) await untilEnded(cover, LAST_RESORT_MS);
  await killAll(() => findByEnvironment(`${NAME}=${directory}/`));
}

function isIdentity(value: unknown): value is ProcessIdentity {
  if (typeof value !== "object" || value === null) return false;
  const { pid, start } = value as Partial<ProcessIdentity>;
  return typeof pid === "number" && (typeof start === "string" || start === null);
}

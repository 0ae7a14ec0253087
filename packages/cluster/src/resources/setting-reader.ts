import type { ResourceDefinition, ResourceSetting } from "@lockstep/core";
import { LockstepError } from "@lockstep/protocol/wire";

type Settings = Readonly<Record<string, ResourceSetting>>;

/**
 * Reads the settings of one resource and collects every fault on the way, so that whoever wrote them corrects all at
 * once. A setting that nobody asked for is a fault too.
 */
export class SettingReader {
  readonly #settings: Settings;
  readonly #asked = new Set<string>();
  readonly #faults: string[] = [];

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  fault(name: string, problem: string): void {
    this.#faults.push(`${name}: ${problem}`);
  }

  /**
   * A text without control characters. Empty where it is missing and has no default, which is a fault. A number counts as
   * its digits: whoever writes `probeTcp = 8080` means the text.
   */
  text(name: string, fallback?: string): string {
    const given = this.#take(name);
    const value = typeof given === "number" ? String(given) : given;
    if (value === undefined) {
      if (fallback === undefined) this.fault(name, "is missing");
      return fallback ?? "";
    }
    if (typeof value !== "string" || value === "") this.fault(name, "must be a text");
    else if (/\p{Cc}/u.test(value)) this.fault(name, "must not hold control characters");
    else return value;
    return fallback ?? "";
  }

  /** An absolute path without `..`. */
  path(name: string, fallback?: string): string {
    const path = this.text(name, fallback);
    if (path !== "" && !isAbsolutePath(path))
      this.fault(name, `${path} is no absolute path without "." and ".."`);
    return path;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.#take(name) ?? fallback;
    if (typeof value === "boolean") return value;
    this.fault(name, "must be true or false");
    return fallback;
  }

  count(name: string, fallback: number, min: number, max: number): number {
    const value = this.#take(name) ?? fallback;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
    this.fault(name, `must be a whole number from ${min} to ${max}`);
    return fallback;
  }

  /** A list of texts; one text or number alone counts as a list of it. */
  list(name: string, fallback: readonly string[] = []): readonly string[] {
    const given = this.#take(name) ?? fallback;
    const value = typeof given === "number" ? String(given) : given;
    const list = typeof value === "string" ? [value] : value;
    if (Array.isArray(list) && list.every((each) => typeof each === "string" && /^[^\p{Cc}]+$/u.test(each)))
      return list;
    this.fault(name, "must be a list of texts without control characters");
    return fallback;
  }

  /** All faults, those of settings that nobody asked for included. */
  faults(): readonly string[] {
    const unknown = Object.keys(this.#settings).filter((name) => !this.#asked.has(name));
    const known = [...this.#asked].join(", ");
    return [
      ...this.#faults,
      ...unknown.map((name) => `${name}: there is no such setting; there are ${known}`),
    ];
  }

  #take(name: string): ResourceSetting | undefined {
    this.#asked.add(name);
    return Object.hasOwn(this.#settings, name) ? this.#settings[name] : undefined;
  }
}

export const isAbsolutePath = (path: string): boolean =>
  /^\/[^\p{Cc}]*$/u.test(path) && !path.split("/").some((segment) => segment === "." || segment === "..");

/** Throws RESOURCE_SETTINGS with all faults, where there are any. */
export function refuseFaults({ name, type }: ResourceDefinition, faults: readonly string[]): void {
  if (faults.length === 0) return;
  throw new LockstepError(
    "RESOURCE_SETTINGS",
    `the settings of [${name}] (${type}) are wrong: ${faults.join("; ")}`,
    {
      hint: "docs/reference/resources.md has the settings of each type.",
      faults: faults.map((problem) => ({ where: name, problem })),
    },
  );
}

/** RESOURCE_FAILED of one resource. */
export function resourceFailed(
  { name, type }: ResourceDefinition,
  problem: string,
  details: { readonly hint?: string; readonly cause?: unknown } = {},
): LockstepError {
  return new LockstepError("RESOURCE_FAILED", `[${name}] (${type}): ${problem}`, details);
}

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { promisify } from "node:util";

const run = promisify(execFile);
const LIMIT_MS = 5_000;

/** How systemd sees one unit. */
export interface UnitState {
  /** `active`, `inactive`, `failed`, … */
  readonly state: string;
  /** `enabled`: it starts with the machine; `disabled` is what the source documents call manual. */
  readonly startMode: string;
  /** Digest of its files as systemd reads them, without where they lie. */
  readonly mark: string;
}

/** Asks systemd; null: it has no such unit. Throws where systemd does not answer. */
export async function findUnit(unit: string): Promise<UnitState | null> {
  const shown = await ask("show", "--property=LoadState,ActiveState,UnitFileState", "--", unit);
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(shown)?.[1] ?? "";
  if (value("LoadState") !== "loaded") return null;
  const text = (await ask("cat", "--", unit)).replaceAll(/^#.*\n/gm, "");
  return {
    ...{ state: value("ActiveState"), startMode: value("UnitFileState") },
    mark: createHash("sha256").update(text).digest("hex"),
  };
}

async function ask(...args: readonly string[]): Promise<string> {
  const { stdout } = await run("systemctl", [...args], {
    timeout: LIMIT_MS,
    env: { ...process.env, LC_ALL: "C", SYSTEMD_PAGER: "" },
  });
  return stdout;
}

import { readFileSync } from "node:fs";
import { LockstepError } from "@lockstep/protocol/wire";
import { usage } from "../options.ts";

export interface ValueArguments {
  readonly set?: readonly string[];
  readonly setFile?: readonly string[];
}

/**
 * Values of parameters as they stand on the command line. Secrets belong into files: what stands on a command line, every
 * user of the machine can read. Throws USAGE, FILE_ACCESS_FAILED.
 */
export function readValues({ set = [], setFile = [] }: ValueArguments): Record<string, unknown> {
  const values = new Map<string, unknown>();
  const put = (name: string, value: unknown) => {
    if (values.has(name)) throw usage(`the parameter ${name} is given twice`);
    values.set(name, value);
  };
  for (const pair of set) {
    const { name, typed, text } = split("--set", pair);
    put(name, typed ? readJson(name, text) : text);
  }
  for (const pair of setFile) {
    const { name, text: file } = split("--set-file", pair);
    put(name, readText(file).replace(/\r?\n$/, ""));
  }
  return Object.fromEntries(values);
}

function split(option: string, pair: string): { name: string; typed: boolean; text: string } {
  const equals = pair.indexOf("=");
  const typed = option === "--set" && pair[equals - 1] === ":";
  const name = pair.slice(0, typed ? equals - 1 : equals);
  // Not the whole of it: it may be a password with the name forgotten.
  if (equals < 0 || name === "") throw usage(`${option} takes NAME=VALUE`, "day=2026-01-31");
  return { name, typed, text: pair.slice(equals + 1) };
}

function readJson(name: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw usage(
      `the value of ${name} is not JSON`,
      `${name}:=5, ${name}:=[1,2], ${name}:='"text"'`,
      cause instanceof Error ? cause.message : undefined,
    );
  }
}

/** The text of a file; `-` is standard input. Throws FILE_ACCESS_FAILED. */
export function readText(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `${file} cannot be read`, {
      found: cause instanceof Error && "code" in cause ? String(cause.code) : String(cause),
      hint: "Name a file that can be read.",
      cause,
    });
  }
}

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { revisionFileName } from "@lockstep/core";

/** The installation that a service belongs to: the one in which its configuration lies. */
export interface OwnInstallation {
  readonly directory: string;
  /** As in InstallState.config; null where that cannot be read. */
  readonly id: string | null;
  /** The token file for the hub that the installation names. */
  readonly tokenFile: string | null;
}

const STATE = "InstallState.config";
const REVISION_FILE = revisionFileName(process.platform === "win32");

/** Looks upwards from the configuration file; null: it lies in none. */
export function findInstallation(configFile: string): OwnInstallation | null {
  for (let directory = dirname(configFile); ; directory = dirname(directory)) {
    if (existsSync(join(directory, STATE)) || existsSync(join(directory, ".lockstep", "commit.json")))
      return { directory, ...readHead(directory) };
    if (dirname(directory) === directory) return null;
  }
}

/** An update stopped between its commit and its end: the files may be of two revisions. */
export function isUpdateUnfinished(installation: OwnInstallation): boolean {
  return existsSync(join(installation.directory, ".lockstep", "commit.json"));
}

/** The installed software revision; null: none is recorded, which counts as out of date. */
export function readRevision(installation: OwnInstallation): number | null {
  try {
    const first =
      readFileSync(join(installation.directory, REVISION_FILE), "utf8").split("\n")[0]?.trim() ?? "";
    return /^\d{1,15}$/.test(first) ? Number(first) : null;
  } catch {
    return null;
  }
}

function readHead(directory: string): Pick<OwnInstallation, "id" | "tokenFile"> {
  try {
    const state = JSON.parse(readFileSync(join(directory, STATE), "utf8")) as {
      readonly id?: unknown;
      readonly hub?: { readonly tokenFile?: unknown } | null;
    };
    return {
      id: typeof state.id === "string" ? state.id : null,
      tokenFile: typeof state.hub?.tokenFile === "string" ? state.hub.tokenFile : null,
    };
  } catch {
    return { id: null, tokenFile: null };
  }
}

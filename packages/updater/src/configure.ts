import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseHubUrl, readAuthorities } from "@lockstep/client";
import {
  type EditsPolicy,
  formatInstallState,
  type InstallationSettings,
  type InstallState,
  readTransferSettings,
  type TransferLimits,
  type TransferSettings,
} from "@lockstep/core";
import { locate, readInstallState } from "./installation.ts";
import { guarded } from "./io-failure.ts";
import type { InstallationPaths } from "./layout.ts";
import { newRunId, type SessionOptions, withInstallation } from "./session.ts";
import { UpdateLog } from "./update-log.ts";

/** What can be set in an installation. Absent: stays as it is. */
export interface InstallationChange {
  readonly autoUpdate?: boolean | undefined;
  readonly edits?: EditsPolicy | undefined;
  readonly hubUrl?: string | undefined;
  /** Null: the machine's own certificates. */
  readonly caFile?: string | null | undefined;
  readonly tokenFile?: string | null | undefined;
  /** Null: none from now on. */
  readonly relay?: string | null | undefined;
  /** Limits for what it fetches. Null: what the hub says from now on. */
  readonly transfer?: { readonly [Name in keyof TransferLimits]?: TransferLimits[Name] | null | undefined };
}

/**
 * Changes the settings of an installation and returns them as they are now. With nothing to change it only reads.
 * Throws INSTALLATION_*, USAGE.
 */
export async function configure(
  directory: string,
  change: InstallationChange,
  options: SessionOptions,
): Promise<Pick<InstallState, "id" | "hub" | "settings" | "rolesChosen" | "packagesChosen">> {
  const paths = locate(directory);
  const { transfer = {}, ...rest } = change;
  const wanted = Object.entries({ ...rest, ...transfer }).filter(([, value]) => value !== undefined);
  if (wanted.length === 0) return readInstallState(paths);
  // Later nobody is there to be told.
  if (typeof change.caFile === "string") readAuthorities(resolve(change.caFile));
  return await withInstallation(paths, options, async ({ host }) => {
    const state = readInstallState(paths);
    const path = (value: string | null | undefined, now: string | null) =>
      value === undefined ? now : value === null ? null : resolve(value);
    const next: InstallState = {
      ...state,
      hub: {
        url:
          change.hubUrl === undefined ? state.hub.url : parseHubUrl(change.hubUrl).href.replace(/\/+$/, ""),
        caFile: path(change.caFile, state.hub.caFile),
        tokenFile: path(change.tokenFile, state.hub.tokenFile),
        relay:
          typeof change.relay === "string"
            ? parseHubUrl(change.relay).href.replace(/\/+$/, "")
            : change.relay === undefined
              ? (state.hub.relay ?? null)
              : null,
      },
      settings: {
        autoUpdate: change.autoUpdate ?? state.settings.autoUpdate,
        edits: change.edits ?? state.settings.edits,
        ...changedTransfer(state.settings.transfer, change.transfer ?? {}),
      },
    };
    writeState(paths, formatInstallState(next));
    const log = new UpdateLog(paths, host.clock, newRunId(host.clock.now()));
    for (const [name, value] of wanted) log.note("configure", null, "ok", `${name} = ${String(value)}`);
    const unwritten = log.flush();
    if (unwritten !== null)
      host.progress({ kind: "notice", message: `update.log is not complete: ${unwritten}` });
    return next;
  });
}

function changedTransfer(
  now: TransferSettings = {},
  change: NonNullable<InstallationChange["transfer"]>,
): Pick<InstallationSettings, "transfer"> {
  const given = Object.entries(change).filter(([, value]) => value !== undefined);
  const transfer = readTransferSettings({ ...now, ...Object.fromEntries(given) });
  return Object.keys(transfer).length === 0 ? {} : { transfer };
}

/** Replaces InstallState.config durably, in one step. The caller holds the lock. */
export function writeState(paths: InstallationPaths, text: string): void {
  const temporary = join(paths.privateDirectory, "state.new");
  guarded(paths.state, "writing", () => {
    writeFileSync(temporary, text, { mode: 0o644, flush: true });
    renameSync(temporary, paths.state);
    if (process.platform === "win32") return;
    const descriptor = openSync(paths.root, "r");
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
}

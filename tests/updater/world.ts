import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import type { InstallOptions, ProgressEvent, SessionOptions } from "@lockstep/updater";
import { SmallHub } from "./small-hub.ts";

/** A hub and a place for installations; everything is gone when the test ends. */
export interface World {
  readonly hub: SmallHub;
  readonly root: string;
  readonly events: ProgressEvent[];
  /** What a command is given; without self-update unless asked for. */
  options(more?: Partial<SessionOptions>): SessionOptions;
  installOptions(roles: readonly string[], more?: Partial<InstallOptions>): InstallOptions;
}

export async function makeWorld(t: Pick<TestContext, "after">): Promise<World> {
  const hub = await SmallHub.start();
  const root = mkdtempSync(join(tmpdir(), "lockstep-updater-"));
  t.after(async () => {
    await hub[Symbol.asyncDispose]();
    makeRemovable(root);
    // A relay in it, which ends after this, may have a last file to write.
    rmSync(root, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });
  const events: ProgressEvent[] = [];
  const options = (more: Partial<SessionOptions> = {}): SessionOptions => ({
    access: { environment: {} },
    progress: (event) => events.push(event),
    selfUpdate: false,
    ...more,
  });
  return {
    hub,
    root,
    events,
    options,
    installOptions: (roles, more = {}) => ({
      ...options({ access: { environment: {}, url: hub.url } }),
      roles,
      ...more,
    }),
  };
}

function makeRemovable(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return;
  chmodSync(path, 0o700);
  for (const name of readdirSync(path)) makeRemovable(join(path, name));
}

/** The product's and the user's files below a directory, with their contents; ours are left out. */
export function treeOf(directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  const open = [""];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    for (const entry of readdirSync(join(directory, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (folder === "" && OURS.test(path)) continue;
      if (entry.isDirectory()) open.push(path);
      else if (entry.isSymbolicLink()) found[path] = "a link";
      else found[path] = readFileSync(join(directory, path), "utf8");
    }
  }
  return Object.fromEntries(Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const OURS = /^(\.lockstep|InstallState\.config|update\.(log|lock).*|\.?softwarerevision\.viv)$/;

/** Writes a file of a user, folders and all. */
export function put(directory: string, path: string, content: string, mode = 0o644): void {
  mkdirSync(dirname(join(directory, path)), { recursive: true });
  writeFileSync(join(directory, path), content, { mode });
}

export const revisionOf = (directory: string) =>
  Number(readFileSync(join(directory, ".softwarerevision.viv"), "utf8").split("\n")[0]);

export const stateOf = (directory: string) =>
  JSON.parse(readFileSync(join(directory, "InstallState.config"), "utf8")) as {
    id: string;
    roles: string[];
    packages: string[];
    rolesChosen: string[];
    settings: { autoUpdate: boolean; edits: string };
    files: [path: string, size: number, sha256: string, mode: number, backup: number][];
  };

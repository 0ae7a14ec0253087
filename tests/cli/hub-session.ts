import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before } from "node:test";
import { startTestHub, type TestHub } from "./hub.ts";
import { documentOf, type Ended, type ErrorDocument, lockstep } from "./lockstep.ts";

/** What `load --json` prints. */
export interface LoadDocument {
  readonly loaded: boolean;
  readonly load: number | null;
  readonly revision: number | null;
  readonly revisionBefore: number | null;
  readonly changes: boolean;
  readonly statuses: Readonly<Record<"unknown" | "never-loaded" | "changed" | "equal", number>>;
  readonly removed: readonly string[];
  readonly undistributed: number;
  readonly notices: readonly string[];
  readonly files?: readonly { readonly path: string; readonly status: string }[];
}

/** One hub for all tests of a file, and the commands that they give it. */
export interface HubSession {
  readonly directory: string;
  readonly hub: () => TestHub;
  readonly run: (...args: string[]) => Promise<Ended>;
  readonly load: (source: string, ...args: string[]) => Promise<LoadDocument>;
  readonly refused: (...args: string[]) => Promise<ErrorDocument["error"]>;
  readonly makeSource: (name: string, files: Readonly<Record<string, string>>) => string;
  readonly listed: (
    match: string,
  ) => Promise<Map<string, { targets: string[]; sha256: string | null; mode: number }>>;
}

/** Starts the hub, with these settings, before the tests of the file that calls it, and ends it after them. */
export function useHub(...settings: string[]): HubSession {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-cli-test-"));
  let running: TestHub | null = null;
  const hub = () => running ?? assert.fail("the hub does not run yet");

  before(async () => {
    running = await startTestHub(directory);
    if (settings.length === 0) return;
    const set = await run("settings", "set", ...settings);
    assert.equal(set.status, 0, set.stderr);
  });

  after(async () => {
    const { status } = await hub().stop();
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 });
    assert.equal(status, 0, "a hub that is told to stop ends with 0");
  });

  function run(...args: string[]): Promise<Ended> {
    return lockstep(args, { env: hub().env });
  }

  async function load(source: string, ...args: string[]): Promise<LoadDocument> {
    const end = await run("load", source, "--json", "--yes", ...args);
    assert.equal(end.status, 0, end.stderr);
    return documentOf<LoadDocument>(end);
  }

  async function refused(...args: string[]): Promise<ErrorDocument["error"]> {
    const end = await run(...args, "--json");
    assert.equal(end.status, 3, end.stderr);
    return documentOf<ErrorDocument>(end).error;
  }

  /** Each test loads a module of its own, with files below a folder of its own: they share the hub. */
  function makeSource(name: string, files: Readonly<Record<string, string>>): string {
    const source = join(directory, `source-${name}`);
    rmSync(source, { recursive: true, force: true });
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(source, name, path)), { recursive: true });
      writeFileSync(join(source, name, path), content);
    }
    return source;
  }

  async function listed(
    match: string,
  ): Promise<Map<string, { targets: string[]; sha256: string | null; mode: number }>> {
    const end = await run("files", "list", match, "--json");
    const { files } = documentOf<{
      files: { path: string; targets: string[]; sha256: string | null; mode: number }[];
    }>(end);
    return new Map(files.map((file) => [file.path, file]));
  }

  return { directory, hub, run, load, refused, makeSource, listed };
}

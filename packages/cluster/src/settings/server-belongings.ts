import { PUSHED_CONFIG, type SettingsReport, type VirtualServerDefinition } from "@lockstep/core";
import type { Clock, Disk } from "@lockstep/platform";
import type { Coordination } from "../coordination/coordination.ts";
import { at, CONFIGS } from "../documents/addresses.ts";
import type { HostNote } from "../host/host-types.ts";
import { configPushFileOf, dataDirectoryOf, settingsDirectoryOf } from "../host/server-directory.ts";
import type { ServerBelongings } from "../node/hosted-servers.ts";
import { type ConfigPull, pullConfig } from "./config-pull.ts";
import { ServerSettings } from "./server-settings.ts";
import { adoptOwner } from "./take-over.ts";
import { VolumeReach } from "./volume-reach.ts";

/**
 * What goes with one virtual server on one node: its settings, which follow it, and the configuration file of its service,
 * which an administrator pushes. A quiet loop beside the host fetches what a takeover would need and lays down what was
 * pushed; nothing of it is waited for by a move.
 */
export interface ServerBelongingsOptions {
  readonly definition: VirtualServerDefinition;
  readonly node: string;
  /** Of this virtual server on this node; private; see host/server-directory.ts. */
  readonly directory: string;
  readonly coordination: Coordination;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly pushedConfig: "accept" | "report";
  readonly noted: (note: HostNote) => void;
}

const LOOK_MS = 2_000;
const DIRECTORY_MODE = 0o700;

export class OpenBelongings implements ServerBelongings {
  readonly #options: ServerBelongingsOptions;
  readonly #settings: ServerSettings;
  readonly #reach = new VolumeReach();
  readonly #ending = new AbortController();
  readonly #looking: Promise<void>;
  #definition: VirtualServerDefinition;
  #woken = new AbortController();
  #told = "";

  constructor(options: ServerBelongingsOptions) {
    const { definition, node, directory, coordination, disk, clock, noted } = options;
    this.#options = options;
    this.#definition = definition;
    for (const each of [directory, dataDirectoryOf(directory)]) makeDirectories(disk, each);
    this.#settings = new ServerSettings({
      ...{ definition, node, coordination, disk, clock },
      dataDirectory: dataDirectoryOf(directory),
      directory: settingsDirectoryOf(directory),
      findHanging: (paths) => this.#reach.findHanging(paths),
      listener: {
        noted: ({ token, what, detail }) => noted({ server: definition.name, token, what, detail }),
        changed: () => {},
      },
    });
    this.#looking = this.#look();
  }

  beforeOnline(token: number): Promise<void> {
    return this.#settings.beforeOnline(token);
  }

  afterOffline(token: number): Promise<void> {
    return this.#settings.afterOffline(token);
  }

  define(definition: VirtualServerDefinition): void {
    this.#definition = definition;
    this.#settings.define(definition);
    this.#woken.abort();
  }

  prepare(): Promise<void> {
    return this.#settings.fetchAhead();
  }

  report(): SettingsReport {
    return this.#settings.report();
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#looking;
    await this.#settings.close();
  }

  async #look(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      this.#woken = new AbortController();
      await this.#pull();
      await this.#settings.prefetch();
      await this.#options.clock.sleep(LOOK_MS, AbortSignal.any([signal, this.#woken.signal]));
    }
  }

  async #pull(): Promise<void> {
    const { coordination, disk, directory, pushedConfig: policy } = this.#options;
    const definition = this.#definition;
    const { config, name } = definition;
    if (config === null || config.hash === null) return;
    try {
      const hanging = await this.#reach.findHanging([config.path]);
      if (hanging !== null) {
        this.#tell({ kind: "left", why: `${hanging.on} does not answer` }, config.path);
        return;
      }
      const document = await coordination.documents.read(at(CONFIGS, name).key);
      const parsed = document === null ? null : PUSHED_CONFIG.parse(document.text);
      const pushed =
        document === null || parsed?.ok !== true
          ? null
          : { revision: document.revision, config: parsed.value };
      const memory = configPushFileOf(directory);
      this.#tell(
        await pullConfig({ disk, memory, policy, adopt: adoptOwner }, definition, pushed),
        config.path,
      );
    } catch (error) {
      this.#tell({ kind: "left", why: error instanceof Error ? error.message : String(error) }, config.path);
    }
  }

  /** Once, not with every look. */
  #tell(pull: ConfigPull, path: string): void {
    const told =
      pull.kind === "written"
        ? `${path}: as pushed${pull.before === null ? "" : `, was ${pull.before.slice(0, 12)}, kept as ${path}.previous`}`
        : pull.kind === "left"
          ? `${path}: ${pull.why}`
          : "";
    if (told === this.#told) return;
    this.#told = told;
    const what = pull.kind === "written" ? "config-laid-down" : "config-not-laid-down";
    if (told !== "") this.#options.noted({ server: this.#definition.name, token: null, what, detail: told });
  }
}

function makeDirectories(disk: Disk, path: string): void {
  if (path === "/" || disk.lstat(path) !== null) return;
  makeDirectories(disk, path.slice(0, Math.max(1, path.lastIndexOf("/"))));
  disk.makeDirectory(path, DIRECTORY_MODE);
}

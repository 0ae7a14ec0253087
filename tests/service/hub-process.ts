/** A hub in a process of its own on a database that outlives it, always at the same address. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { connectionString } from "../hub/support/test-hub.ts";
import type { TestDatabase } from "../support/postgres.ts";
import { temporaryDirectory } from "./service-world.ts";

/** An address of this process alone: whoever else asks for any free port of 127.0.0.1 takes none of ours between two runs. */
const HOST =
  process.platform === "linux"
    ? `127.${64 + ((process.pid >> 16) & 63)}.${(process.pid >> 8) & 255}.${process.pid & 255}`
    : "127.0.0.1";
const PROGRAM = join(import.meta.dirname, "../hub/support/hub-process.ts");

export class HubProcess {
  readonly directory: string;
  url = "";
  #database: TestDatabase;
  #child: ChildProcess | null = null;

  private constructor(directory: string, database: TestDatabase) {
    this.directory = directory;
    this.#database = database;
  }

  static async start(t: TestContext, database: TestDatabase): Promise<HubProcess> {
    const hub = new HubProcess(temporaryDirectory(t), database);
    // Before its database and its directory are taken away.
    database.beforeClose(() => hub.kill());
    await hub.restart();
    return hub;
  }

  get token(): string {
    return readFileSync(join(this.directory, "token"), "utf8").trim();
  }

  async restart(): Promise<void> {
    const options = {
      dataDirectory: this.directory,
      database: connectionString(this.#database.address),
      // The first time any free port; then the same one, because services know it.
      listen: this.url === "" ? `${HOST}:0` : new URL(this.url).host,
    };
    const child = spawn(process.execPath, [PROGRAM, JSON.stringify(options)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#child = child;
    this.url = await new Promise<string>((resolve, reject) => {
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        const ready = /^ready (\S+)/.exec(text);
        if (ready?.[1] !== undefined) resolve(ready[1]);
        else reject(new Error(`the hub said ${text}`));
      });
      child.once("exit", (status) => reject(new Error(`the hub ended with ${status}`)));
    });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
}

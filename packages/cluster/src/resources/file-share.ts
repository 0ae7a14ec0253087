import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endServicesOf } from "../host/former-life.ts";
import type { HostedContext } from "../host/host-types.ts";
import type { LaunchedService } from "../host/service-launcher.ts";
import { BARE_ENVIRONMENT, commandProblem, runBounded } from "./bounded-command.ts";
import { findListenProblem, useShare } from "./file-share-client.ts";
import {
  type FileShareSettings,
  formatServerConfig,
  readFileShareSettings,
  SERVER_DIRECTORIES,
} from "./file-share-settings.ts";
import type { Resource, UndoCommand } from "./resource.ts";
import { refuseFaults, resourceFailed } from "./setting-reader.ts";

/**
 * A directory that clients reach by SMB under the virtual server's name and address, wherever it is.
 *
 * Each share has an smbd of its own: its own configuration, private directories and users, bound to the virtual server's
 * addresses and nothing else. The system's Samba is not touched, and need not even run; a share that moves takes no other
 * share along, and when its smbd ends every client is told by a closed connection. The guard is its parent, so it ends
 * with the lease like any service.
 *
 * The price is one server for each share, and that the system's own Samba, if it runs, must leave the address alone
 * (`bind interfaces only`). Not promised: that a client's open files survive a move; clients open them again.
 */
const SMBD = "/usr/sbin/smbd";
/** A socket's path is no longer than 107 bytes, and smbd makes some below its directory. */
const DIRECTORY_LENGTH_MAX = 107 - "/lock/msg.sock/4194304".length;
const LISTEN_MS = 2_000;
const AGAIN_MS = 50;
const BUSY_MS = 1_000;

/** Throws RESOURCE_SETTINGS. */
export function openFileShare(context: HostedContext): Resource {
  const { settings, faults } = readFileShareSettings(context.definition.settings);
  const isTooLong = Buffer.byteLength(context.directory) > DIRECTORY_LENGTH_MAX;
  const tooLong = `the node's data directory is too long for sockets below ${context.directory}`;
  refuseFaults(context.definition, isTooLong ? [...faults, tooLong] : faults);
  return new FileShare(context, settings);
}

class FileShare implements Resource {
  /** The guard is the parent of the server and needs to be told nothing. */
  readonly undo: readonly UndoCommand[] = [];
  readonly #context: HostedContext;
  readonly #settings: FileShareSettings;
  #service: LaunchedService | null = null;

  constructor(context: HostedContext, settings: FileShareSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  async online(busy: () => void, calledOff: AbortSignal): Promise<void> {
    if (!existsSync(SMBD))
      throw this.#failed(`there is no ${SMBD} on this node`, {
        hint: "Install Samba (Debian package samba).",
      });
    const problem = await this.#findDirectoryProblem();
    if (problem !== null) throw this.#failed(problem);
    this.#refuseAbsent();
    await this.#refuseTaken();
    const service = await this.#context.services.launch({
      program: SMBD,
      arguments: ["--foreground", "--no-process-group", "-s", this.#writeConfig()],
      directory: "/",
      environment: { ...BARE_ENVIRONMENT, ...this.#context.services.environment },
      hostName: null,
    });
    this.#service = service;
    void service.ended.then(({ code, signal }) => {
      // One that was told to end, or one of before, says nothing.
      if (this.#service !== service) return;
      this.#service = null;
      this.#context.failed(`smbd ended by itself (${signal ?? `status ${code}`})`);
    });
    await this.#untilListening(service, busy, calledOff);
  }

  async offline(busy: () => void): Promise<void> {
    const service = this.#service;
    this.#service = null;
    if (service === null) return;
    service.signal("SIGTERM");
    const until = performance.now() + this.#settings.stopMs;
    let hasEnded = false;
    void service.ended.then(() => {
      hasEnded = true;
    });
    while (!hasEnded && performance.now() < until) {
      busy();
      await Promise.race([service.ended, sleep(Math.min(BUSY_MS, Math.max(1, until - performance.now())))]);
    }
    if (!hasEnded) await service.kill();
  }

  async check(isThorough: boolean): Promise<string | null> {
    const { addresses, port, checkMs } = this.#settings;
    if (this.#service === null) return "smbd does not run";
    for (const address of addresses) {
      const problem = await findListenProblem(address, port, LISTEN_MS);
      if (problem !== null) return problem;
    }
    if (!isThorough) return null;
    const [address = ""] = addresses;
    return (await this.#findDirectoryProblem()) ?? (await useShare(this.#settings, address, checkMs));
  }

  async terminate(): Promise<void> {
    const service = this.#service;
    this.#service = null;
    await service?.kill();
    await endServicesOf(this.#context.directory);
  }

  /** In a child: it may lie on a volume that hangs. */
  async #findDirectoryProblem(): Promise<string | null> {
    const { path, checkMs } = this.#settings;
    const end = await runBounded("/bin/ls", ["-d", "--", `${path}/.`], { limitMs: checkMs });
    return commandProblem(`looking for the directory ${path}`, end, checkMs);
  }

  /** smbd itself serves those of its addresses that are there, and ends with a core dump when none is. */
  #refuseAbsent(): void {
    const own = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
    for (const address of this.#settings.addresses)
      if (!own.some((each) => each.address === address))
        throw this.#failed(`${address} is not an address of this node`, {
          hint: "Let the share depend on the virtual server's address.",
        });
  }

  /** Whoever answers there before we begin would be taken for ours. */
  async #refuseTaken(): Promise<void> {
    const { addresses, port } = this.#settings;
    for (const address of addresses)
      if ((await findListenProblem(address, port, LISTEN_MS)) === null)
        throw this.#failed(`something else answers on ${address} port ${port}`, {
          hint: "The system's own Samba must not listen there: bind interfaces only = yes, and its own interfaces.",
        });
  }

  #writeConfig(): string {
    const { virtualServer, directory } = this.#context;
    for (const name of SERVER_DIRECTORIES)
      mkdirSync(join(directory, name), { recursive: true, mode: name === "ncalrpc" ? 0o755 : 0o700 });
    const file = join(directory, "smb.conf");
    writeFileSync(file, formatServerConfig(this.#settings, virtualServer, directory), { mode: 0o600 });
    return file;
  }

  async #untilListening(service: LaunchedService, busy: () => void, calledOff: AbortSignal): Promise<void> {
    const { addresses, port, startMs } = this.#settings;
    const until = performance.now() + startMs;
    for (const address of addresses)
      for (;;) {
        const problem = await findListenProblem(address, port, LISTEN_MS);
        if (this.#service !== service)
          throw this.#failed(`smbd ended at once; ${join(this.#context.directory, "smbd.log")} may say why`);
        if (problem === null) break;
        if (calledOff.aborted) throw this.#failed("its start was called off");
        if (performance.now() >= until)
          throw this.#failed(`smbd did not serve after ${startMs} ms: ${problem}`);
        busy();
        await sleep(AGAIN_MS);
      }
  }

  #failed(problem: string, details: { readonly hint?: string } = {}) {
    return resourceFailed(this.#context.definition, problem, details);
  }
}

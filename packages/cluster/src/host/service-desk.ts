import { LockstepError } from "@lockstep/protocol/wire";
import type { FromGuard, ToGuard } from "../guard/messages.ts";
import { endServices, type ServiceMark, signalServiceGroup } from "../guard/service-group.ts";
import type { LaunchedService, ServiceEnd, ServiceLauncher, ServiceRun } from "./service-launcher.ts";

/** The services of one virtual server on the daemon's side: orders to the guard, and what it says of them. */
export interface ServiceDeskPort {
  token(): number | null;
  tell(message: ToGuard): void;
}

interface Entry {
  readonly spawned: PromiseWithResolvers<ServiceMark>;
  readonly ended: PromiseWithResolvers<ServiceEnd>;
}

const KILLED: ServiceEnd = { code: null, signal: "SIGKILL" };

export class ServiceDesk {
  readonly #port: ServiceDeskPort;
  readonly #entries = new Map<string, Entry>();

  constructor(port: ServiceDeskPort) {
    this.#port = port;
  }

  /** For one resource. `environment`: see ServiceLauncher; `hostName`: null where a service keeps the machine's. */
  launcher(
    resource: string,
    environment: Readonly<Record<string, string>>,
    hostName: string | null,
  ): ServiceLauncher {
    return { environment, hostName, launch: (run) => this.#launch(resource, run) };
  }

  heard(message: FromGuard): void {
    switch (message.kind) {
      case "spawned":
        this.#entries.get(message.service)?.spawned.resolve(message);
        return;
      case "failed":
        this.#entries
          .get(message.service)
          ?.spawned.reject(failure(message.service, "cannot be started", message.problem));
        return;
      case "exited":
        this.#end(message.service, message);
        return;
      case "stopped":
        this.allEnded();
        return;
      default:
    }
  }

  /** No service is left: the guard says so, or it was replaced. */
  allEnded(): void {
    for (const service of [...this.#entries.keys()]) this.#end(service, KILLED);
  }

  #end(service: string, { code, signal }: ServiceEnd): void {
    const entry = this.#entries.get(service);
    if (entry === undefined) return;
    this.#entries.delete(service);
    entry.ended.resolve({ code, signal });
    entry.spawned.reject(failure(service, "was ended before it began", "the lease is no longer ours"));
  }

  async #launch(service: string, run: ServiceRun): Promise<LaunchedService> {
    // The guard has one of a name; what is killed already may not have been seen to end yet.
    await this.#entries.get(service)?.ended.promise;
    const token = this.#port.token();
    if (token === null) throw failure(service, "must not be started", "the lease is not ours");
    const entry: Entry = { spawned: Promise.withResolvers(), ended: Promise.withResolvers() };
    entry.spawned.promise.catch(() => {});
    this.#entries.set(service, entry);
    this.#port.tell({ kind: "launch", token, service, run });
    const mark = await entry.spawned.promise;
    let hasEnded = false;
    void entry.ended.promise.then(() => (hasEnded = true));
    return {
      ended: entry.ended.promise,
      signal: (signal) => {
        if (!hasEnded) signalServiceGroup(mark.group, signal);
      },
      // Not through the guard, which may be the one that is gone.
      kill: async () => {
        if (!hasEnded) await endServices([mark]);
      },
    };
  }
}

const failure = (service: string, what: string, problem: string) =>
  new LockstepError("RESOURCE_FAILED", `the service of ${service} ${what}`, {
    found: problem,
    hint: "Look at the resource's settings, and whether the program runs on this node by hand.",
  });

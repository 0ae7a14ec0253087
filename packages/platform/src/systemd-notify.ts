import { spawn } from "node:child_process";

/**
 * Words to systemd (sd_notify(3)): ready, alive, stopping. Node has no sockets for datagrams of the file system, so
 * `systemd-notify` carries them; the unit needs `NotifyAccess=all`, because they come from a process of its own.
 * Without systemd nothing happens.
 */
export class ServiceManager {
  readonly #environment: Readonly<Record<string, string | undefined>>;
  #watchdog: NodeJS.Timeout | undefined;

  constructor(environment: Readonly<Record<string, string | undefined>>) {
    this.#environment = environment;
  }

  ready(status: string): void {
    this.#say("READY=1", `STATUS=${status}`);
  }

  stopping(): void {
    this.#say("STOPPING=1");
  }

  /** Says at half of the time that the service manager waits that we live, as long as `isWell`. */
  watch(isWell: () => boolean): void {
    const { WATCHDOG_USEC, WATCHDOG_PID } = this.#environment;
    const everyMs = Number(WATCHDOG_USEC) / 2000;
    if (!Number.isFinite(everyMs) || everyMs <= 0) return;
    if (WATCHDOG_PID !== undefined && Number(WATCHDOG_PID) !== process.pid) return;
    this.#watchdog = setInterval(() => {
      if (isWell()) this.#say("WATCHDOG=1");
    }, everyMs);
    this.#watchdog.unref();
  }

  close(): void {
    clearInterval(this.#watchdog);
  }

  #say(...words: string[]): void {
    const { NOTIFY_SOCKET, PATH } = this.#environment;
    if (NOTIFY_SOCKET === undefined) return;
    try {
      const child = spawn("systemd-notify", [`--pid=${process.pid}`, ...words], {
        env: { NOTIFY_SOCKET, ...(PATH === undefined ? {} : { PATH }) },
        stdio: "ignore",
      });
      child.on("error", () => {
        // Without the program systemd waits in vain and says so itself.
      });
      child.unref();
    } catch {
      // The same, where the system refuses to start anything (no memory): said again soon.
    }
  }
}

import { dirname } from "node:path";
import { LockstepError } from "@lockstep/protocol/wire";

/** What a service manager has to know to run the service. All paths absolute. */
export interface ServiceProgram {
  /** Without `.service`. */
  readonly name: string;
  /** Program and arguments, up to and without `service run`. */
  readonly command: readonly string[];
  readonly configFile: string;
  /** The directory that the updater changes and that state and log are in, usually the installation. */
  readonly directory: string;
  /** Further directories that the service writes to: a log elsewhere, a state directory elsewhere. */
  readonly writable: readonly string[];
  /** The account it runs as. */
  readonly user: string;
  readonly drainMs: number;
  readonly queues: readonly string[];
}

/** By this line `uninstall` knows its own unit. */
export const UNIT_MARK = "# Written by `lockstep service install`.";

/** Below these nothing is visible with ProtectHome. */
const HOMES = ["/home", "/root", "/run/user"];

/**
 * The unit of a job service (systemd.service(5), systemd.exec(5)).
 *
 * It is shut off from everything that a job server does not need as such. What its steps start is shut off with it: a
 * step that needs more (sudo, a device, another directory) gets it by a drop-in, which docs/operating/service.md shows.
 * Two holes are left on purpose. V8 makes code at run time, so MemoryDenyWriteExecute cannot be; and /proc is whole,
 * because locks tell a living process from another one by what stands there.
 */
export function formatUnit(program: ServiceProgram): string {
  const { command, configFile, directory, writable, user, drainMs, queues } = program;
  refuseAccount(user);
  const start = [...command, "service", "run", "--config", configFile].map(quote).join(" ");
  const visible = [...new Set(command.filter((word) => word.startsWith("/")).map((path) => dirname(path)))];
  const lines = [
    UNIT_MARK,
    "# Changes belong into a drop-in: systemctl edit",
    "[Unit]",
    `Description=Lockstep job service (${queues.map(escapePercent).join(", ") || "no queue"})`,
    "Wants=network-online.target",
    "After=network-online.target",
    // A hub that is away for long is no reason to give up.
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=notify",
    // The watchdog is told by a small program of its own, because Node knows no datagram sockets.
    "NotifyAccess=all",
    `ExecStart=${start}`,
    `WorkingDirectory=${wholePath(directory)}`,
    `EnvironmentFile=-${wholePath(`${directory}/service.env`)}`,
    `User=${user}`,
    "Restart=always",
    "RestartSec=2",
    "WatchdogSec=60",
    // An update runs before the service says that it is ready.
    "TimeoutStartSec=30min",
    `TimeoutStopSec=${Math.ceil(drainMs / 1000) + 30}`,
    // The supervisor tells its own; whoever is left after the time limit is killed with the whole group.
    "KillMode=mixed",
    // A step that took too much memory is one failed step.
    "OOMPolicy=continue",
    "UMask=0027",
    "LimitNOFILE=65536",
    "",
    "# Only these can be written to.",
    "ProtectSystem=strict",
    `ReadWritePaths=${quotePath(directory)}`,
    // A directory that is not there must not keep the service from starting.
    ...writable.map((path) => `ReadWritePaths=${quotePath(path, "-")}`),
    ...protectHome([directory, ...writable], visible),
    "PrivateMounts=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "DevicePolicy=closed",
    "",
    "# No way to more rights than the account has.",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "PrivateUsers=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "KeyringMode=private",
    "",
    "# The system itself is none of its business.",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
    "",
    "[Install]",
    "WantedBy=multi-user.target",
  ];
  return `${lines.join("\n")}\n`;
}

function protectHome(writable: readonly string[], readable: readonly string[]): string[] {
  const isHome = (path: string) => HOMES.some((home) => path === home || path.startsWith(`${home}/`));
  const bound = [
    ...writable.filter(isHome).map((path) => `BindPaths=${quotePath(path, "-")}`),
    ...readable.filter(isHome).map((path) => `BindReadOnlyPaths=${quotePath(path)}`),
  ];
  return bound.length === 0 ? ["ProtectHome=yes"] : ["ProtectHome=tmpfs", ...bound];
}

const escapePercent = (text: string) => text.replaceAll("%", "%%").replaceAll(/\p{Cc}/gu, " ");

/** A word of ExecStart: as it is, or in quotes; `%` and `$` mean something there otherwise. */
export function quote(word: string): string {
  refuseControl(word);
  const escaped = word.replaceAll("%", "%%").replaceAll("$", () => "$$");
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(word) ? escaped : `"${escaped.replaceAll(/["\\]/g, "\\$&")}"`;
}

/** A path where a setting takes one path, and quotes would be part of it. */
function wholePath(path: string): string {
  refuseControl(path);
  return path.replaceAll("%", "%%");
}

/** A path where a setting takes several; `$` means nothing there. */
function quotePath(path: string, prefix = ""): string {
  refuseControl(path);
  const escaped = prefix + path.replaceAll("%", "%%");
  return /\s|["'\\]/.test(path) ? `"${escaped.replaceAll(/["\\]/g, "\\$&")}"` : escaped;
}

/** What systemd takes in User=, a little narrower: a name, or a number. Anything else it would only refuse when it starts. */
function refuseAccount(user: string): void {
  if (/^(?:[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|\d{1,10})$/.test(user)) return;
  throw new LockstepError("USAGE", "--user takes the name or the number of an account", {
    expected: "letters, digits, and _ . -",
    found: JSON.stringify(user),
  });
}

function refuseControl(text: string): void {
  if (!/\p{Cc}/u.test(text)) return;
  throw new LockstepError(
    "SERVICE_INSTALL_FAILED",
    "a path holds a control character, which no unit can name",
    {
      found: JSON.stringify(text),
      hint: "Rename the directory.",
    },
  );
}

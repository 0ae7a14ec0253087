import type { Unit } from "./registration.ts";
import { quote } from "./systemd-unit.ts";

/** What systemd has to know to run the daemon of a cluster's node. All paths absolute. */
export interface NodeProgram {
  /** Without `.service`. */
  readonly name: string;
  /** Program and arguments, up to and without `node`. */
  readonly command: readonly string[];
  readonly configFile: string;
}

/** By this line `uninstall` knows its own unit. */
export const NODE_UNIT_MARK = "# Written by `lockstep node install`.";

/** What neither the daemon nor what it starts has any business with; from capabilities(7). */
const CAPABILITIES_DENIED = [
  ...["CAP_AUDIT_CONTROL", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN"],
  ...["CAP_MAC_OVERRIDE", "CAP_PERFMON", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_RAWIO"],
  ...["CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYSLOG", "CAP_WAKE_ALARM"],
];

/**
 * The unit of a node's daemon (systemd.service(5), systemd.exec(5)).
 *
 * Two things are other than in the unit of a job service. systemd ends the daemon alone, never its guards: they end the
 * services, undo addresses and mounts and give the leases back, which whoever kills them at the same moment prevents; so
 * `KillMode=process`. And nothing that gives the daemon a view of the file system of its own can be had, because what it
 * mounts and shares must be there for the whole machine; that rules out ProtectSystem, PrivateTmp and their like. It runs
 * as root, without the capabilities and system calls by which root changes the kernel, the clock or the machine's life.
 * All of it holds for the services too.
 */
export function nodeUnit({ name, command, configFile }: NodeProgram): Unit {
  const start = [...command, "node", "--config", configFile].map(quote).join(" ");
  const lines = [
    NODE_UNIT_MARK,
    "# Changes belong into a drop-in: systemctl edit",
    "[Unit]",
    "Description=Lockstep node of a cluster",
    "Wants=network-online.target",
    // A store on this machine ends after us, so that leases can be given back.
    "After=network-online.target time-sync.target etcd.service postgresql.service",
    // A store that is away for long is no reason to give up.
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=notify",
    // The watchdog is told by a small program of its own, because Node knows no datagram sockets.
    "NotifyAccess=all",
    `ExecStart=${start}`,
    "WorkingDirectory=/",
    "Restart=always",
    "RestartSec=1",
    "WatchdogSec=30",
    // Its guards act when it is gone; a core dump would only keep it there.
    "WatchdogSignal=SIGKILL",
    // It is ready when the store has answered, and waits for one that is away.
    "TimeoutStartSec=infinity",
    // Everything goes offline in order, a job service drains.
    "TimeoutStopSec=150",
    "KillMode=process",
    // What a service takes too much of is the service's end, not the node's.
    "OOMPolicy=continue",
    "OOMScoreAdjust=-900",
    "LimitNOFILE=65536",
    // For the guards (guard.priority of the node configuration).
    "LimitRTPRIO=99",
    "",
    "# It changes addresses, mounts and processes of this machine, and nothing of the kernel.",
    `CapabilityBoundingSet=~${CAPABILITIES_DENIED.join(" ")}`,
    "AmbientCapabilities=",
    "LockPersonality=yes",
    "KeyringMode=private",
    "SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap",
    "SystemCallErrorNumber=EPERM",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET",
    "",
    "[Install]",
    "WantedBy=multi-user.target",
  ];
  return { name, text: `${lines.join("\n")}\n`, mark: NODE_UNIT_MARK };
}

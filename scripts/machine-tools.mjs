// Programs of the machine that tests and benchmarks compare us with or watch us through. Missing ones are installed on
// Debian for root, since that is what a build machine is; everywhere else the tests that need them skip by name.
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";
import { run } from "./spawn.mjs";

/** Programs for administrators stand where a user's PATH need not look. */
const onPath = (program) => () =>
  [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"].some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

const POSTGRES_DIRECTORY = "/usr/lib/postgresql";
const hasPostgres = () =>
  existsSync(POSTGRES_DIRECTORY) &&
  readdirSync(POSTGRES_DIRECTORY).some((version) =>
    existsSync(join(POSTGRES_DIRECTORY, version, "bin", "postgres")),
  );

/** Name of the tool: how to see that it is there, which Debian package brings it, what is left out without it. */
const TOOLS = {
  strace: {
    isThere: onPath("strace"),
    without: "the tests that kill the updater before each of its system calls",
  },
  softhsm2: { isThere: onPath("softhsm2-util"), without: "the test of keys in a PKCS#11 token" },
  opensc: { isThere: onPath("pkcs11-tool"), without: "the test of keys in a PKCS#11 token" },
  "python3-pykcs11": {
    isThere: () => existsSync("/usr/lib/python3/dist-packages/PyKCS11"),
    without: "the test of keys in a PKCS#11 token",
  },
  openssl: { isThere: onPath("openssl"), without: "the TLS tests and the comparison with openssl" },
  postgresql: { isThere: hasPostgres, without: "the tests on the machine's own PostgreSQL" },
  systemd: {
    isThere: onPath("systemd-analyze"),
    without: "systemd's own judgement of the job service's unit",
  },
  "etcd-server": { isThere: onPath("etcd"), without: "the tests of a cluster on a real etcd" },
  iproute2: { isThere: onPath("ip"), without: "the tests with hosts of their own on a switch" },
  nftables: { isThere: onPath("nft"), without: "the tests with hosts of their own on a switch" },
  "iputils-ping": { isThere: onPath("ping"), without: "the test of those hosts" },
  "iputils-arping": { isThere: onPath("arping"), without: "the tests that move an address" },
  "libndp-tools": { isThere: onPath("ndptool"), without: "the tests that move an IPv6 address" },
  bind9: { isThere: onPath("named"), without: "the tests on a real name server" },
  "bind9-dnsutils": { isThere: onPath("nsupdate"), without: "the tests on a real name server" },
  samba: { isThere: () => existsSync("/usr/sbin/smbd"), without: "the tests of a share on a virtual server" },
  smbclient: { isThere: onPath("smbclient"), without: "the tests of a share on a virtual server" },
  "resource-agents": {
    isThere: () => existsSync("/usr/lib/ocf/resource.d/heartbeat/Dummy"),
    without: "the tests of resources that have an OCF agent",
  },
  pacemaker: { isThere: onPath("pacemakerd"), without: "the test of the job service below Pacemaker" },
  corosync: { isThere: onPath("corosync"), without: "the test of the job service below Pacemaker" },
  kmod: {
    isThere: () => existsSync("/sbin/modprobe"),
    without: "the test with the OCF agent of file systems, which asks for modules",
  },
  "nginx-light": { isThere: onPath("nginx"), without: "the test with nginx before the hub" },
  keepalived: { isThere: onPath("keepalived"), without: "the comparison of failovers" },
  rsync: { isThere: onPath("rsync"), without: "the comparison with rsync" },
  git: { isThere: onPath("git"), without: "the comparison with git" },
  tar: { isThere: onPath("tar"), without: "the comparison with tar" },
};

function isDebian() {
  try {
    return /^ID(_LIKE)?=.*\bdebian\b/m.test(readFileSync("/etc/os-release", "utf8"));
  } catch {
    return false;
  }
}

/** The Debian package `postgresql` starts a server of its own unless told not to; the tests need the programs alone. */
function declinePostgresCluster() {
  const file = "/etc/postgresql-common/createcluster.conf";
  if (existsSync(file)) return;
  mkdirSync("/etc/postgresql-common", { recursive: true });
  writeFileSync(file, "create_main_cluster = false\n");
}

const POLICY = "/usr/sbin/policy-rc.d";

/** Debian asks this program whether a package may start its service (invoke-rc.d(8)); the tests need the programs alone. */
function declineServices() {
  if (existsSync(POLICY)) return () => {};
  writeFileSync(POLICY, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  return () => rmSync(POLICY, { force: true });
}

/** Installs what is missing where that is possible, and says in either case what it did or what will be skipped. */
export async function ensureMachineTools(names) {
  const missing = names.filter((name) => !TOOLS[name].isThere());
  if (missing.length === 0) return;
  if (isDebian() && process.getuid?.() === 0) {
    console.error(`installing the Debian packages ${missing.join(", ")} for the tests: apt-get`);
    if (missing.includes("postgresql")) declinePostgresCluster();
    const options = {
      stdio: ["ignore", 2, 2],
      env: {
        ...process.env,
        // Package scripts need the directories of the administrator, which a user's PATH may lack.
        PATH: `${process.env.PATH ?? ""}:/usr/sbin:/usr/bin:/sbin:/bin`,
        DEBIAN_FRONTEND: "noninteractive",
        UCF_FORCE_CONFFOLD: "1",
      },
    };
    const apt = (...args) => run("apt-get", ["-q", ...args], options).catch(() => 1);
    await apt("update");
    const allowServices = declineServices();
    await apt("install", "-y", "--no-install-recommends", ...missing).finally(allowServices);
  }
  for (const name of missing)
    if (!TOOLS[name].isThere())
      console.error(`${name} is not on this machine: skipping ${TOOLS[name].without}`);
}

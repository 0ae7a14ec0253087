import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LabHost } from "../support/lab-host.ts";

/** A real BIND on a host of the lab, with a zone that a key may change. */
export interface WorldNames {
  /** Of `virtual-server add`. */
  readonly options: readonly string[];
  /** The addresses of a name, as a client of the lab is told. */
  lookUp(name: string): Promise<string[]>;
  stop(): Promise<void>;
}

const ZONE = "example.test";
const READY_MS = 180_000;

export async function startWorldNames(host: LabHost): Promise<WorldNames> {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-test-names-"));
  chmodSync(directory, 0o700);
  const keyFile = join(directory, "update.key");
  const key = await host.must("tsig-keygen", "-a", "hmac-sha256", "update-key");
  writeFileSync(keyFile, key, { mode: 0o600 });
  writeFileSync(
    join(directory, "zone"),
    `$TTL 60\n@ IN SOA ns.${ZONE}. admin.${ZONE}. 1 60 60 600 60\n@ IN NS ns.${ZONE}.\nns IN A ${host.address}\n`,
  );
  writeFileSync(
    join(directory, "named.conf"),
    `${key}
options { directory "${directory}"; pid-file "named.pid"; session-keyfile "session.key"; lock-file none;
  listen-on { ${host.address}; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; notify no; };
controls { };
zone "${ZONE}" { type primary; file "zone"; allow-update { key "update-key"; }; };
`,
  );
  const named = host.start("named", ["-g", "-n", "1", "-c", join(directory, "named.conf")]);
  const lookUp = async (name: string) => {
    const words = [`@${host.address}`, "+short", "+tries=1", "+time=15", name, "A"];
    const { stdout } = await host.run("dig", words);
    return stdout.split("\n").filter((line) => line !== "" && !line.startsWith(";"));
  };
  const stop = async () => {
    named.kill("SIGKILL");
    if (named.exitCode === null && named.signalCode === null)
      await new Promise((resolve) => named.once("exit", resolve));
    rmSync(directory, { recursive: true, force: true });
  };
  for (const until = performance.now() + READY_MS; (await lookUp(`ns.${ZONE}`)).length === 0; )
    if (performance.now() > until) {
      await stop();
      throw new Error("named is not ready");
    }
  return { options: ["--name-server", host.address, "--name-key", keyFile], lookUp, stop };
}

import { readFile } from "node:fs/promises";
import type { Clock } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol/wire";
import type { Coordination } from "./coordination.ts";
import { openEtcd } from "./etcd.ts";
import type { EtcdOptions } from "./etcd-gateway.ts";

/**
 * Which store, as it stands in a configuration and travels to the guard. Secrets stand in files, which are named here and
 * read where the store is opened.
 */
export type CoordinationConfig = EtcdConfig | PostgresConfig;

export interface EtcdConfig {
  readonly store: "etcd";
  readonly endpoints: readonly string[];
  readonly callMs: number;
  /** What all keys of the cluster begin with. */
  readonly prefix?: string;
  /** PEM: who signed the members' certificates. */
  readonly caFile?: string;
  /** PEM: our own certificate, where the members ask for one. */
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly user?: string;
  readonly passwordFile?: string;
}

export interface PostgresConfig {
  readonly store: "postgres";
  /** Exactly one of them: the address, or a file that holds it because it holds a password. */
  readonly url?: string;
  readonly urlFile?: string;
  readonly callMs: number;
  readonly watchMs: number;
  readonly prefix?: string;
}

/** Opens it. Throws COORDINATION_UNREACHABLE where that takes a connection, FILE_ACCESS_FAILED for a file that it names. */
export async function openCoordination(config: CoordinationConfig, clock: Clock): Promise<Coordination> {
  const prefix = config.prefix === undefined ? {} : { prefix: config.prefix };
  if (config.store === "etcd") {
    const { endpoints, callMs } = config;
    return openEtcd({ endpoints, callMs, clock, ...prefix, ...(await readEtcdAccess(config)) });
  }
  // Loaded only where it is used: a guard on etcd need not carry it.
  const { openPostgres } = await import("./postgres.ts");
  const { url, urlFile, callMs, watchMs } = config;
  const connectionString = url ?? (await readNamed(urlFile))?.trim() ?? "";
  return openPostgres({ connection: { connectionString }, callMs, watchMs, clock, ...prefix });
}

/** The files by which a node is let into etcd. Throws FILE_ACCESS_FAILED. */
export async function readEtcdAccess(config: EtcdConfig): Promise<Pick<EtcdOptions, "tls" | "login">> {
  const { caFile, certFile, keyFile, user, passwordFile } = config;
  const [ca, cert, key, password] = await Promise.all(
    [caFile, certFile, keyFile, passwordFile].map((file) => readNamed(file)),
  );
  return {
    tls: { ca: ca ?? null, cert: cert ?? null, key: key ?? null },
    login: user === undefined ? null : { user, password: (password ?? "").replace(/\r?\n$/, "") },
  };
}

async function readNamed(file: string | undefined): Promise<string | null> {
  if (file === undefined) return null;
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new LockstepError("FILE_ACCESS_FAILED", `${file} cannot be read`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: "The file is named in [coordination]; it must be readable for the account of this program.",
      cause,
    });
  }
}

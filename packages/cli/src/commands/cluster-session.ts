import { hostname, userInfo } from "node:os";
import type { ClusterDocuments, Coordination, NodeConfig } from "@lockstep/cluster";
import { type Interruption, listenForInterruption, systemClock } from "@lockstep/platform";
import type { Command } from "commander";
import { addJsonOption, wholeNumber } from "../options.ts";
import { Output } from "../screen/output.ts";

const CONFIG_DEFAULT = "/etc/lockstep/node.toml";

/** The options that every `lockstep cluster` command has. */
export interface ClusterArguments {
  readonly config?: string;
  readonly json?: boolean;
}

/** What a command on a cluster works with: the store that the node configuration names, and where its words go. */
export interface ClusterSession {
  readonly config: NodeConfig;
  readonly coordination: Coordination;
  readonly documents: ClusterDocuments;
  readonly output: Output;
  /** Aborts on Ctrl-C; whatever was ordered stands. */
  readonly signal: AbortSignal;
  /** Who does it, for orders and the history. */
  readonly actor: string;
  /** The cluster's package, loaded for these commands alone. */
  readonly api: ClusterApi;
}

export type ClusterApi = typeof import("@lockstep/cluster");
export type Examination = typeof import("@lockstep/cluster/examination");

export function addClusterOptions(command: Command): Command {
  return addJsonOption(command).option(
    "--config <file>",
    `the node configuration (else LOCKSTEP_NODE_CONFIG, else ${CONFIG_DEFAULT})`,
  );
}

/** For each command that orders something and follows it. */
export function addFollowOptions(command: Command): Command {
  return addClusterOptions(command)
    .option(
      "--timeout <seconds>",
      "how long to wait for the cluster (300)",
      wholeNumber("--timeout", 1, 86_400),
    )
    .option("--no-wait", "order it, and do not wait");
}

/**
 * Opens the store that the node configuration names, runs something with it, and closes every connection however that
 * ends. Throws NODE_CONFIG, COORDINATION_UNREACHABLE; INTERRUPTED when it was Ctrl-C that ended it.
 */
export async function withCluster(
  given: ClusterArguments,
  use: (session: ClusterSession) => Promise<void>,
): Promise<void> {
  const api = await import("@lockstep/cluster");
  const config = await api.loadNodeConfig(
    given.config ?? (process.env.LOCKSTEP_NODE_CONFIG || CONFIG_DEFAULT),
  );
  using interruption: Interruption = listenForInterruption();
  const { signal } = interruption;
  const output = new Output(given);
  const store = await api.openCoordination(config.coordination, systemClock);
  const coordination = api.patientCoordination(store, {
    clock: systemClock,
    tell: () => output.note("the coordination store does not answer; it is asked again for some seconds"),
  });
  try {
    await use({
      config,
      coordination,
      documents: new api.ClusterDocuments(coordination.documents),
      output,
      signal,
      actor: currentActor(),
      api,
    });
  } finally {
    await coordination.close();
  }
}

function currentActor(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    // A user id without a name, as in some containers.
    return `uid ${process.getuid?.() ?? "unknown"}@${hostname()}`;
  }
}

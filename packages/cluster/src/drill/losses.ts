import { spawn } from "node:child_process";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { DrillOrder, VirtualServerDefinition } from "@lockstep/core";
import type { CoordinationConfig } from "../coordination/open.ts";
import { findByEnvironment } from "../guard/service-group.ts";
import { formerGuards, servicesOf } from "../host/former-life.ts";
import { refusalText, startOrRefusal } from "../refused-start.ts";
import { runBounded } from "../resources/bounded-command.ts";
import { readServiceSettings } from "../resources/generic-service-settings.ts";
import { findSystemctl } from "../resources/systemd-unit.ts";
import { cutTraffic, networkCut, storeCut, whyNoCut } from "./traffic-cut.ts";

/**
 * What a drill takes away from this node. Each is prepared first, which changes nothing and says what speaks against it;
 * only then the order is claimed and the loss begins.
 *
 * The loss of a node is what a power cut leaves of it: daemon and guards are killed at one blow, so that nobody gives the
 * lease back and the others have to wait it out; the last resorts end services and addresses. It is not a freeze: a
 * frozen guard could not end the service while another node begins it, and a drill must not make two.
 */
export interface LossSurroundings {
  /** The daemon's directory. */
  readonly directory: string;
  readonly coordination: CoordinationConfig;
}

/** Begins the loss. Resolves to why it could not; null: it has begun. Of `daemon` and `node` it does not come back. */
export type BeginLoss = () => Promise<string | null>;

export type PreparedLoss = { readonly problem: string } | { readonly begin: BeginLoss };

export async function prepareLoss(
  order: DrillOrder,
  definition: VirtualServerDefinition,
  { directory, coordination }: LossSurroundings,
): Promise<PreparedLoss> {
  switch (order.loss) {
    case "service":
      return prepareService(definition, join(directory, "servers", definition.name));
    case "daemon":
      return prepareDeath(order.lastsMs, []);
    case "node":
      return prepareDeath(order.lastsMs, await guardsOf(directory));
    case "network":
      return prepareCut(
        networkCut(order.lastsMs),
        "this node has no network but the loopback",
        order.lastsMs,
      );
    case "store": {
      const rules = await storeCut(coordination, order.lastsMs);
      return prepareCut(rules, "the store is not reached by TCP from here", order.lastsMs);
    }
  }
}

const KILL_MS = 10_000;

function prepareService(definition: VirtualServerDefinition, directory: string): PreparedLoss {
  const services = definition.resources.filter(({ type }) => type === "generic-service");
  const entries = services.map(({ name }) => servicesOf(join(directory, encodeURIComponent(name))));
  const units = services.flatMap(({ settings }) => {
    const { what } = readServiceSettings(settings).settings;
    return what.kind === "unit" ? [what.unit] : [];
  });
  const find = () => entries.flatMap((entry) => findByEnvironment(entry));
  const systemctl = findSystemctl();
  if (services.length === 0) return { problem: "it has no resource of type generic-service" };
  if (units.length > 0 && systemctl === null) return { problem: "systemctl is not on this machine" };
  if (units.length === 0 && find().length === 0) return { problem: "nothing of its service runs here" };
  return {
    begin: async () => {
      // Once: what comes up meanwhile is the restart that the drill is about.
      for (const pid of find()) kill(pid);
      for (const unit of units)
        await runBounded(systemctl ?? "", ["kill", "--signal=SIGKILL", unit], { limitMs: KILL_MS });
      return null;
    },
  };
}

async function guardsOf(directory: string): Promise<number[]> {
  const servers = await readdir(join(directory, "servers")).catch(() => []);
  return servers.flatMap((server) => {
    const [guard] = formerGuards(join(directory, "servers", server));
    return guard === undefined ? [] : [guard.pid];
  });
}

/** Under systemd the daemon comes back by its unit; else a shell begins it anew, which finds the port taken if another did. */
function prepareDeath(lastsMs: number, guards: readonly number[]): PreparedLoss {
  if (process.pid === 1)
    return {
      problem: "the daemon is the first process of its container, which the system does not let it kill",
    };
  return {
    begin: () => {
      const refusal = process.env.SYSTEMD_EXEC_PID === String(process.pid) ? null : beginAnew(lastsMs);
      // Nobody would begin it anew.
      if (refusal !== null) return Promise.resolve(refusal);
      for (const guard of guards) kill(guard);
      kill(process.pid);
      // SIGKILL does not return.
      return new Promise(() => {});
    },
  };
}

const AGAIN = 'sleep "$1"; shift; exec "$@"';

/** Why nothing will begin it anew; null: a shell waits for that. */
function beginAnew(lastsMs: number): string | null {
  const [program = process.execPath, ...words] = [
    process.execPath,
    ...process.execArgv,
    ...process.argv.slice(1),
  ];
  const shell = startOrRefusal(() =>
    spawn("/bin/sh", ["-c", AGAIN, "sh", (lastsMs / 1000).toFixed(3), program, ...words], {
      stdio: ["ignore", "inherit", "inherit"],
      detached: true,
    }),
  );
  if (shell instanceof Error) return `what begins the daemon anew cannot be started: ${refusalText(shell)}`;
  shell.on("error", () => {});
  shell.unref();
  return shell.pid === undefined ? "what begins the daemon anew cannot be started" : null;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

async function prepareCut(rules: string | null, none: string, lastsMs: number): Promise<PreparedLoss> {
  const problem = rules === null ? none : await whyNoCut(rules);
  if (rules === null || problem !== null) return { problem: problem ?? none };
  return { begin: () => cutTraffic(rules, lastsMs) };
}

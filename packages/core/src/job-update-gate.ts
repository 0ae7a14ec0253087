/**
 * Which steps a job server may get, as far as the automatic update is concerned (behaviours 36 to 41).
 *
 * A server whose installation is at another revision than the semaphore gets no normal steps, only those that update it.
 * Where one machine serves several queues, none gets normal steps while another one of them is being updated. Where
 * *update servers* are declared, the others wait for one of them to be at the new revision first, so that a bad release
 * stops the update servers and not everybody; while they wait they work on. A server that is silent, switched off or
 * excluded from updates keeps nobody waiting: it would keep them for ever.
 */
export interface GateServer {
  readonly queue: string;
  /** Of its installation; null: it belongs to none, so there is nothing to update. */
  readonly revision: number | null;
  /** Its lease has not run out. */
  readonly alive: boolean;
  readonly disabled: boolean;
  readonly noAutoUpdate: boolean;
  readonly updateServer: boolean;
}

export interface GateInput {
  /** The semaphore. */
  readonly revision: number;
  /** Common/AutoUpdate. */
  readonly autoUpdate: boolean;
  readonly server: GateServer;
  /** The other queues of its machine. */
  readonly machine: readonly GateServer[];
  /** Every update server. */
  readonly updateServers: readonly GateServer[];
}

export interface GateDecision {
  readonly deliver: "all" | "update-only" | "none";
  readonly updating: boolean;
  /** For people: why it gets no (normal) steps, or why it is not updated; null: nothing to say. */
  readonly reason: string | null;
}

type UpdateNeed =
  | { readonly kind: "none" }
  | { readonly kind: "update" }
  | { readonly kind: "wait"; readonly reason: string };

function updateNeed(input: Omit<GateInput, "server" | "machine">, server: GateServer): UpdateNeed {
  if (!input.autoUpdate || server.noAutoUpdate) return { kind: "none" };
  if (server.revision === null || server.revision === input.revision) return { kind: "none" };
  if (server.updateServer || input.updateServers.length === 0) return { kind: "update" };
  const able = input.updateServers.filter(({ disabled }) => !disabled);
  // An update server without an installation has no revision to prove anything with.
  if (able.some(({ alive, revision }) => alive && revision === input.revision)) return { kind: "update" };
  const names = input.updateServers.map(({ queue }) => queue).join(", ");
  const reason = able.some(({ alive }) => alive)
    ? `its update to revision ${input.revision} waits until an update server (${names}) has it`
    : `its update to revision ${input.revision} waits for an update server, and none of them serves: ${names}`;
  return { kind: "wait", reason };
}

/** What the server may get now. */
export function decideGate(input: GateInput): GateDecision {
  const need = updateNeed(input, input.server);
  if (need.kind === "update")
    return {
      deliver: "update-only",
      updating: true,
      reason: `is being updated from revision ${input.server.revision} to ${input.revision}`,
    };
  const updating = input.machine.filter(
    (other) => other.alive && !other.disabled && updateNeed(input, other).kind === "update",
  );
  if (updating.length > 0)
    return {
      deliver: "update-only",
      updating: false,
      reason: `waits for the update of ${updating.map(({ queue }) => queue).join(", ")} on the same machine`,
    };
  return { deliver: "all", updating: false, reason: need.kind === "wait" ? need.reason : null };
}

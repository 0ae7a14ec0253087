/**
 * The guard of one virtual server: what ends the service when nobody else does.
 *
 * The problem: whoever renews the lease can freeze, and a frozen process stops nothing. Its service would serve on while
 * the next owner begins.
 *
 * What we do: a separate small program is the parent of the service. It knows one thing, the deadline, and is told of
 * each renewal through a pipe. At the deadline, or when the pipe closes, it kills the service and takes the address away.
 * It never decides in favour of serving: it launches only what is armed, only in time, and a token that it has killed
 * stays dead. When its daemon is gone and the service too, it gives the lease back, so that the others need not wait.
 *
 * A renewal that reached us late still counts when its deadline lies ahead: the store has accepted it, so nobody else can
 * have taken over. Hence whoever drives this takes in all that has been told before it looks at the clock.
 */
export type GuardState =
  | { readonly kind: "idle"; readonly tokenMax: number; readonly closed: boolean }
  | {
      readonly kind: "armed";
      readonly tokenMax: number;
      readonly deadline: number;
      readonly running: boolean;
    }
  | {
      readonly kind: "killing";
      readonly tokenMax: number;
      readonly why: GuardReason;
      readonly closed: boolean;
    };

export type GuardReason = "deadline" | "daemon-gone" | "told";

export type GuardEvent =
  | { readonly kind: "tick" }
  | { readonly kind: "arm"; readonly token: number; readonly deadline: number }
  | { readonly kind: "extend"; readonly token: number; readonly deadline: number }
  /** Start the service under this token. */
  | { readonly kind: "launch"; readonly token: number }
  /** Kill it now. */
  | { readonly kind: "kill"; readonly token: number }
  /** It was stopped in order; the guard has seen it end, or kills what is left. */
  | { readonly kind: "disarm"; readonly token: number }
  /** The daemon's end of the pipe is closed. */
  | { readonly kind: "closed" }
  /** The whole process group is gone; after a kill, the address with it. */
  | { readonly kind: "gone" };

export type GuardEffect =
  | { readonly kind: "armed"; readonly token: number }
  | { readonly kind: "spawn"; readonly token: number }
  /** End the process group and take the address away; `gone` follows when that is certain. */
  | { readonly kind: "kill"; readonly token: number; readonly why: GuardReason }
  /** Tell the daemon that nothing of this token is left. */
  | { readonly kind: "stopped"; readonly token: number; readonly why: GuardReason | "exited" | "disarmed" }
  | { readonly kind: "give-back"; readonly token: number }
  | { readonly kind: "exit" };

export interface GuardTransition {
  readonly state: GuardState;
  readonly effects: readonly GuardEffect[];
}

export function startGuard(): GuardState {
  return { kind: "idle", tokenMax: 0, closed: false };
}

/** When the guard must look at the clock again; null: never. */
export function nextGuardWake(state: GuardState): number | null {
  return state.kind === "armed" ? state.deadline : null;
}

/** One transition. `now`: the same clock as the daemon's on this machine, which a suspended machine does not stop. */
export function stepGuard(state: GuardState, event: GuardEvent, now: number): GuardTransition {
  const taken = take(state, event, now);
  const { state: next, effects } = taken;
  if (next.kind !== "armed" || now < next.deadline) return taken;
  const killed = kill(next, "deadline", false);
  return { state: killed.state, effects: [...effects.filter(isStillTrue), ...killed.effects] };
}

/** Nothing is launched or confirmed at the moment that ends it. */
const isStillTrue = ({ kind }: GuardEffect) => kind !== "spawn" && kind !== "armed";

function take(state: GuardState, event: GuardEvent, now: number): GuardTransition {
  switch (event.kind) {
    case "tick":
      return { state, effects: [] };
    case "arm":
      if (state.kind !== "idle" || state.closed || event.token <= state.tokenMax)
        return { state, effects: [] };
      return {
        state: { kind: "armed", tokenMax: event.token, deadline: event.deadline, running: false },
        effects: [{ kind: "armed", token: event.token }],
      };
    case "extend":
      if (state.kind !== "armed" || state.tokenMax !== event.token || event.deadline <= state.deadline)
        return { state, effects: [] };
      return { state: { ...state, deadline: event.deadline }, effects: [] };
    case "launch":
      if (state.kind !== "armed" || state.tokenMax !== event.token || state.running || now >= state.deadline)
        return { state, effects: [] };
      return { state: { ...state, running: true }, effects: [{ kind: "spawn", token: event.token }] };
    case "kill":
      if (state.kind === "armed" && state.tokenMax === event.token) return kill(state, "told", false);
      // Whoever waits for the end of what was never armed, or is gone already, is told so.
      if (state.kind === "idle")
        return { state, effects: [{ kind: "stopped", token: event.token, why: "told" }] };
      return { state, effects: [] };
    case "disarm":
      if (state.kind !== "armed" || state.tokenMax !== event.token) return { state, effects: [] };
      // Whoever leaves while it is still starting may not know yet that it runs.
      if (state.running) return kill(state, "told", false);
      return {
        state: { kind: "idle", tokenMax: state.tokenMax, closed: false },
        effects: [{ kind: "stopped", token: event.token, why: "disarmed" }],
      };
    case "closed":
      return onClosed(state);
    case "gone":
      return onGone(state);
  }
}

function kill(state: GuardState, why: GuardReason, closed: boolean): GuardTransition {
  const { tokenMax } = state;
  return {
    state: { kind: "killing", tokenMax, why, closed },
    effects: [{ kind: "kill", token: tokenMax, why }],
  };
}

function onClosed(state: GuardState): GuardTransition {
  if (state.kind === "idle") return { state: { ...state, closed: true }, effects: [{ kind: "exit" }] };
  if (state.kind === "killing") return { state: { ...state, closed: true }, effects: [] };
  return kill(state, "daemon-gone", true);
}

function onGone(state: GuardState): GuardTransition {
  const { tokenMax: token } = state;
  if (state.kind === "armed")
    return { state: { ...state, running: false }, effects: [{ kind: "stopped", token, why: "exited" }] };
  if (state.kind === "idle") return { state, effects: [] };
  const idle: GuardState = { kind: "idle", tokenMax: token, closed: state.closed };
  const told: GuardEffect = { kind: "stopped", token, why: state.why };
  if (!state.closed) return { state: idle, effects: [told] };
  return { state: idle, effects: [told, { kind: "give-back", token }, { kind: "exit" }] };
}

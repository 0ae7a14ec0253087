/**
 * The guard of one virtual server: what ends the service when nobody else does.
 *
 * The problem: whoever renews the lease can freeze, and a frozen process stops nothing. Its service would serve on while
 * the next owner begins.
 *
 * What we do: a separate small program is the parent of the services. It knows one thing, the deadline, and is told of
 * each renewal through a pipe. At the deadline, or when the pipe closes, it kills the services and undoes what the daemon
 * did outside: addresses, names, mounts. So it is told how to undo a resource before the resource is touched, and the
 * daemon waits for its answer. It never decides in favour of serving: it launches only what is armed, only in time, and a
 * token that it has killed stays dead. When its daemon is gone and the services too, it gives the lease back, so that the
 * others need not wait.
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
      /** Services that run, by resource. */
      readonly running: readonly string[];
      /** Resources that must be undone when this ends otherwise than in order. */
      readonly touched: readonly string[];
    }
  | {
      readonly kind: "killing";
      readonly tokenMax: number;
      readonly why: GuardReason;
      readonly closed: boolean;
    };

/** `write` of a record that the guard gave back in the place of its daemon, whose own writes begin at 1. */
export const WRITTEN_BY_GUARD = 0;

export type GuardReason = "deadline" | "daemon-gone" | "told";

export type GuardEvent =
  | { readonly kind: "tick" }
  | { readonly kind: "arm"; readonly token: number; readonly deadline: number }
  | { readonly kind: "extend"; readonly token: number; readonly deadline: number }
  /** This resource is about to be changed outside; how to undo it has been said. */
  | { readonly kind: "touch"; readonly token: number; readonly resource: string }
  /** It was taken offline in order: nothing of it is left to undo. */
  | { readonly kind: "release"; readonly token: number; readonly resource: string }
  /** Start this service under this token. */
  | { readonly kind: "launch"; readonly token: number; readonly service: string }
  /** Kill everything now. */
  | { readonly kind: "kill"; readonly token: number }
  /** Everything was taken offline in order; what is left all the same is killed and undone. */
  | { readonly kind: "disarm"; readonly token: number }
  /** The daemon's end of the pipe is closed. */
  | { readonly kind: "closed" }
  /** One service has ended, and whatever it had started. */
  | { readonly kind: "exited"; readonly service: string }
  /**
   * After a kill: no service is left, and what was touched is undone. `isClean`: false where something that must not stand
   * beside the next owner's could not be undone.
   */
  | { readonly kind: "gone"; readonly isClean: boolean };

export type GuardEffect =
  | { readonly kind: "armed"; readonly token: number }
  /** Tell the daemon that it may touch the resource now. */
  | { readonly kind: "touched"; readonly token: number; readonly resource: string }
  | { readonly kind: "spawn"; readonly token: number; readonly service: string }
  /** End every service and undo what was touched; `gone` follows when that is certain. */
  | {
      readonly kind: "kill";
      readonly token: number;
      readonly why: GuardReason;
      readonly touched: readonly string[];
    }
  /** Tell the daemon that a service has ended by itself. */
  | { readonly kind: "exited"; readonly token: number; readonly service: string }
  /** Tell the daemon that nothing of this token is left, or, not `isClean`, that something could not be undone. */
  | {
      readonly kind: "stopped";
      readonly token: number;
      readonly why: GuardReason | "disarmed";
      readonly isClean: boolean;
    }
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
const isStillTrue = ({ kind }: GuardEffect) => kind !== "spawn" && kind !== "armed" && kind !== "touched";

function take(state: GuardState, event: GuardEvent, now: number): GuardTransition {
  switch (event.kind) {
    case "tick":
      return { state, effects: [] };
    case "arm":
      if (state.kind !== "idle" || state.closed || event.token <= state.tokenMax)
        return { state, effects: [] };
      return {
        state: {
          kind: "armed",
          tokenMax: event.token,
          deadline: event.deadline,
          running: [],
          touched: [],
        },
        effects: [{ kind: "armed", token: event.token }],
      };
    case "extend":
      if (!isArmed(state, event.token) || event.deadline <= state.deadline) return { state, effects: [] };
      return { state: { ...state, deadline: event.deadline }, effects: [] };
    case "touch": {
      if (!isArmed(state, event.token) || now >= state.deadline) return { state, effects: [] };
      const { token, resource } = event;
      return {
        state: { ...state, touched: withOne(state.touched, resource) },
        effects: [{ kind: "touched", token, resource }],
      };
    }
    case "release":
      if (!isArmed(state, event.token)) return { state, effects: [] };
      return { state: { ...state, touched: without(state.touched, event.resource) }, effects: [] };
    case "launch": {
      const { token, service } = event;
      if (!isArmed(state, token) || state.running.includes(service) || now >= state.deadline)
        return { state, effects: [] };
      return {
        state: { ...state, running: [...state.running, service] },
        effects: [{ kind: "spawn", token, service }],
      };
    }
    case "kill":
      if (isArmed(state, event.token)) return kill(state, "told", false);
      // Whoever waits for the end of what was never armed, or is gone already, is told so.
      if (state.kind === "idle")
        return { state, effects: [{ kind: "stopped", token: event.token, why: "told", isClean: true }] };
      return { state, effects: [] };
    case "disarm":
      if (!isArmed(state, event.token)) return { state, effects: [] };
      // Whoever leaves while something is still starting may not know yet that it runs.
      if (state.running.length > 0 || state.touched.length > 0) return kill(state, "told", false);
      return {
        state: { kind: "idle", tokenMax: state.tokenMax, closed: false },
        effects: [{ kind: "stopped", token: event.token, why: "disarmed", isClean: true }],
      };
    case "closed":
      return onClosed(state);
    case "exited":
      // While everything is being killed each end is part of that.
      if (state.kind !== "armed" || !state.running.includes(event.service)) return { state, effects: [] };
      return {
        state: { ...state, running: without(state.running, event.service) },
        effects: [{ kind: "exited", token: state.tokenMax, service: event.service }],
      };
    case "gone":
      return onGone(state, event.isClean);
  }
}

const isArmed = (state: GuardState, token: number): state is Extract<GuardState, { kind: "armed" }> =>
  state.kind === "armed" && state.tokenMax === token;

const without = (names: readonly string[], name: string) => names.filter((each) => each !== name);
const withOne = (names: readonly string[], name: string) => [...without(names, name), name];

function kill(
  { tokenMax, touched }: Extract<GuardState, { kind: "armed" }>,
  why: GuardReason,
  closed: boolean,
): GuardTransition {
  return {
    state: { kind: "killing", tokenMax, why, closed },
    effects: [{ kind: "kill", token: tokenMax, why, touched }],
  };
}

function onClosed(state: GuardState): GuardTransition {
  if (state.kind === "idle") return { state: { ...state, closed: true }, effects: [{ kind: "exit" }] };
  if (state.kind === "killing") return { state: { ...state, closed: true }, effects: [] };
  return kill(state, "daemon-gone", true);
}

function onGone(state: GuardState, isClean: boolean): GuardTransition {
  if (state.kind !== "killing") return { state, effects: [] };
  const { tokenMax: token } = state;
  const idle: GuardState = { kind: "idle", tokenMax: token, closed: state.closed };
  const told: GuardEffect = { kind: "stopped", token, why: state.why, isClean };
  if (!state.closed) return { state: idle, effects: [told] };
  // What is left could stand beside the next owner's at once: the others wait the lease out instead.
  if (!isClean) return { state: idle, effects: [told, { kind: "exit" }] };
  return { state: idle, effects: [told, { kind: "give-back", token }, { kind: "exit" }] };
}

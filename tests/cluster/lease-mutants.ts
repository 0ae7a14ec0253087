import { stepGuard, stepLease } from "@lockstep/core";
import { type LeaseRules, REAL_RULES } from "./lease-faults.ts";

/**
 * A cluster with one rule left out. The simulation must tell each from the real one, else either the rule is needless or
 * the simulation proves nothing. They sit around the decisions, so that what ships stays as it is.
 */
export interface LeaseMutant {
  readonly name: string;
  readonly rules: LeaseRules;
}

const mutant = (name: string, changed: Partial<LeaseRules>): LeaseMutant => ({
  name,
  rules: { ...REAL_RULES, ...changed },
});

export const LEASE_MUTANTS: readonly LeaseMutant[] = [
  mutant("counts the deadline from the reply", {
    step: (state, event, now, options) => {
      const { role, open } = state;
      if (event.kind !== "swapped" && event.kind !== "refused") return stepLease(state, event, now, options);
      const counted =
        role.kind === "owner"
          ? { ...role, unanswered: role.unanswered.map((each) => ({ ...each, sentAt: now })) }
          : role;
      const answered = open?.call === event.call ? { ...open, sentAt: now } : open;
      return stepLease({ ...state, role: counted, open: answered }, event, now, options);
    },
  }),
  mutant("serves by a flag", { asks: "a-flag" }),
  mutant("asks once and then acts several times", { asks: "once-a-sequence" }),
  mutant("shows no token", { checksTokens: false }),
  mutant("has no guard", {
    guard: (state, event, now) => {
      if (event.kind === "closed") return { state, effects: [{ kind: "exit" }] };
      // Launches and stops as it is told, and has no eye on the clock.
      const late = state.kind === "armed" ? Math.min(now, state.deadline - 1) : now;
      return stepGuard(state, event, late);
    },
  }),
  mutant("takes the address before the guard knows how to take it away", { touches: false }),
  mutant("does not wait", {
    step: (state, event, now, options) => stepLease(state, event, now, { ...options, waitMs: 0 }),
  }),
  mutant("swaps without comparing", { compares: false }),
  mutant("stays without the store when one member agrees", {
    step: (state, event, now, options) =>
      stepLease(state, event, now, {
        ...options,
        members: event.kind === "agreed" ? [event.member] : options.members,
      }),
  }),
  mutant("forgets what it promised", {
    step: (state, event, now, options) =>
      stepLease({ ...state, promisedUntil: Number.NEGATIVE_INFINITY }, event, now, options),
  }),
  mutant("gives the lease back before the service is gone", {
    step: (state, event, now, options) => {
      const result = stepLease(state, event, now, options);
      const left = result.effects.find(({ kind }) => kind === "leave");
      if (left?.kind !== "leave") return result;
      const given = stepLease(result.state, { kind: "stopped", token: left.token }, now, options);
      return { state: given.state, effects: [...result.effects, ...given.effects] };
    },
  }),
  mutant("the guard gives the lease back before the service is gone", {
    guard: (state, event, now) => {
      const { state: next, effects } = stepGuard(state, event, now);
      const killed = effects.find(({ kind }) => kind === "kill");
      if (killed?.kind !== "kill" || event.kind !== "closed") return { state: next, effects };
      return { state: next, effects: [{ kind: "give-back", token: killed.token }, ...effects] };
    },
  }),
];

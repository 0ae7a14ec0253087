import type { Clock } from "@lockstep/platform";

/**
 * Calls back for each member when it has stayed for a fixed time: one timer for all of them. Where members come and go
 * ten thousand times a second and hardly one of them stays, a timer for each takes longer than what they are there for.
 */
export class SharedTimer<Member> {
  readonly #ms: number;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #call: (member: Member) => void;
  /** By the time at which they are due, because all stay equally long. */
  readonly #members = new Map<Member, number>();
  #timer: NodeJS.Timeout | null = null;

  constructor(ms: number, clock: Pick<Clock, "monotonic">, call: (member: Member) => void) {
    this.#ms = ms;
    this.#clock = clock;
    this.#call = call;
  }

  add(member: Member): void {
    this.#members.set(member, this.#clock.monotonic() + this.#ms);
    this.#timer ??= setTimeout(() => this.#look(), this.#ms).unref();
  }

  delete(member: Member): void {
    this.#members.delete(member);
  }

  #look(): void {
    this.#timer = null;
    const now = this.#clock.monotonic();
    for (const [member, dueAt] of this.#members) {
      if (dueAt > now) {
        this.#timer = setTimeout(() => this.#look(), Math.ceil(dueAt - now)).unref();
        return;
      }
      this.#members.delete(member);
      this.#call(member);
    }
  }
}

/** What must never happen. Thrown where it happens, with the true time. */
export class LeaseViolation extends Error {}

/** One machine as it truly is, whatever anybody believes. */
export interface Truth {
  readonly name: string;
  /** The token under which the service runs, or null. */
  readonly service: number | null;
  /** The token under which it has the address, or null. */
  readonly address: number | null;
  readonly isAsleep: boolean;
  /** A machine that slept and woke needs this long until its guard has done its duty. */
  readonly excusedUntil: number;
}

/**
 * Watches the truth. It is told of each change and knows what no process can: all machines at one moment.
 *
 * A whole machine that sleeps is the one case that no inequality covers: guard and service wake together. For as long as
 * the guard may then take, its service is excused for running beside another; what it sends is not.
 */
export class LeaseOracle {
  readonly #machines: readonly Truth[];
  readonly #owners = new Map<number, string>();
  #tokenMax = 0;
  #acceptedMax = 0;
  excused = 0;

  constructor(machines: readonly Truth[]) {
    this.#machines = machines;
  }

  /** The store let `node` take over. */
  taken(token: number, node: string, now: number): void {
    if (token <= this.#tokenMax)
      throw new LeaseViolation(`${now}: token ${token} was given after ${this.#tokenMax}`);
    this.#tokenMax = token;
    this.#owners.set(token, node);
  }

  /** Something of `changed` came to life. */
  demandAlone(changed: Truth, now: number): void {
    for (const other of this.#machines) {
      if (other === changed) continue;
      const both =
        changed.service !== null && other.service !== null
          ? "serve"
          : changed.address !== null && other.address !== null
            ? "own the address"
            : null;
      if (both === null) continue;
      const isExcused = [changed, other].some(
        ({ isAsleep, excusedUntil }) => isAsleep || now <= excusedUntil,
      );
      if (!isExcused) throw new LeaseViolation(`${now}: ${changed.name} and ${other.name} both ${both}`);
      this.excused += 1;
    }
  }

  announced(by: Truth, now: number): void {
    const owner = this.#machines.find((machine) => machine !== by && machine.address !== null);
    if (owner === undefined || owner.isAsleep || now <= owner.excusedUntil) return;
    throw new LeaseViolation(`${now}: ${by.name} announces the address that ${owner.name} owns`);
  }

  /** The daemons that hold it true of themselves that they may serve. */
  demandOneOwner(owners: readonly string[], now: number): void {
    if (owners.length > 1) throw new LeaseViolation(`${now}: ${owners.join(" and ")} both may serve`);
  }

  /** Something outside took what a service sent. */
  accepted(token: number, node: string, now: number): void {
    if (token < this.#acceptedMax)
      throw new LeaseViolation(`${now}: token ${token} was accepted after ${this.#acceptedMax}`);
    if (this.#owners.get(token) !== node)
      throw new LeaseViolation(`${now}: ${node} was accepted with the token of ${this.#owners.get(token)}`);
    this.#acceptedMax = token;
  }
}

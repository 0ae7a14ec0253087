import { renameSync, writeFileSync } from "node:fs";
import { CLUSTER_ENVIRONMENT, type ServiceWord } from "@lockstep/protocol/wire";

/**
 * What the service says to the daemon of its node, where a cluster launched it: that it serves, and that it stands still
 * for an update and nobody is to be alarmed. Elsewhere it says nothing.
 */
export class ClusterWord {
  readonly #file: string | undefined;

  constructor(environment: Readonly<Record<string, string | undefined>>) {
    this.#file = environment[CLUSTER_ENVIRONMENT.word];
  }

  /** Never throws: a word that cannot be said must not stop the service. */
  say(word: ServiceWord): void {
    if (this.#file === undefined || this.#file === "") return;
    try {
      writeFileSync(`${this.#file}.new`, `${word}\n`, { mode: 0o600 });
      renameSync(`${this.#file}.new`, this.#file);
    } catch {
      // The daemon takes it for a service that says nothing: alive is well.
    }
  }
}

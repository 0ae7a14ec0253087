import { NODE_REPORT, type NodeReport } from "@lockstep/core";
import type { Documents } from "../coordination/documents.ts";
import { at, REPORTS } from "../documents/addresses.ts";

/** The report of this node in the store: written with each beat, taken away when the daemon ends. */
export class OwnReport {
  readonly #documents: Documents;
  readonly #key: string;
  /** Null: not known, because the last write may have happened or not. */
  #revision: number | null = null;

  constructor(documents: Documents, node: string) {
    this.#documents = documents;
    this.#key = at(REPORTS, node).key;
  }

  /**
   * Writes it. Returns the report of another daemon that stood there and uses our name, or null. Rejects while the store
   * is away.
   */
  async write(report: NodeReport): Promise<NodeReport | null> {
    let stranger: NodeReport | null = null;
    const text = NODE_REPORT.format(report);
    let expected = this.#revision;
    this.#revision = null;
    if (expected === null) {
      const present = await this.#documents.read(this.#key);
      const parsed = present === null ? null : NODE_REPORT.parse(present.text);
      if (parsed?.ok === true && parsed.value.instance !== report.instance) stranger = parsed.value;
      expected = present?.revision ?? 0;
    }
    this.#revision = await this.#documents.write(this.#key, expected, text);
    return stranger;
  }

  /** Says that this node goes; the last thing that is written. */
  async remove(): Promise<void> {
    const present = await this.#documents.read(this.#key);
    if (present !== null) await this.#documents.write(this.#key, present.revision, null);
  }
}

import type { Programs } from "./programs.ts";

/** What an agent said of one update. */
export interface Followed {
  /** Milliseconds since 1970, when it was done. */
  readonly at: number;
  readonly receivedBytes: number;
}

const LINES_KEPT = 20;

/** A running `lockstep agent` and what it has told so far (one JSON document a line). */
export class AgentWatch {
  readonly #followed = new Map<number, Followed>();
  readonly #said: string[] = [];
  #seen: number | null = null;
  #end: string | null = null;

  constructor(programs: Programs, name: string, directory: string) {
    programs.follow(
      name,
      ["agent", directory, "--json"],
      (line) => this.#take(line),
      (why) => {
        this.#end = `${name} ended (${why}):\n${this.#said.join("\n")}`;
      },
    );
  }

  /** The software revision with which it last found its installation in step; null before it did. */
  get seen(): number | null {
    return this.#seen;
  }

  /** How it came to a revision; undefined before it has. */
  followed(revision: number): Followed | undefined {
    return this.#followed.get(revision);
  }

  /** Throws when the agent has ended or says that it failed: it is meant to go on. */
  demandHealth(): void {
    if (this.#end !== null) throw new Error(this.#end);
    const failure = this.#said.find((line) => line.includes('"kind":"failed"'));
    if (failure !== undefined) throw new Error(`the agent says: ${failure}`);
  }

  #take(line: string): void {
    this.#said.push(line);
    if (this.#said.length > LINES_KEPT) this.#said.shift();
    if (!line.startsWith("{")) return;
    const event = JSON.parse(line) as {
      kind: string;
      revision?: number;
      to?: number;
      receivedBytes?: number;
    };
    if (event.kind === "in-step" && event.revision !== undefined) this.#seen = event.revision;
    if (event.kind === "updated" && event.to !== undefined) {
      this.#seen = event.to;
      this.#followed.set(event.to, { at: Date.now(), receivedBytes: event.receivedBytes ?? 0 });
    }
  }
}

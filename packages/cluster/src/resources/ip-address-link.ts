import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { afterOwnTime } from "@lockstep/platform";
import { refusalText, startOrRefusal } from "../refused-start.ts";
import { BARE_ENVIRONMENT } from "./bounded-command.ts";

/**
 * The interfaces of this machine, by an `ip` that stays: to start a program costs more than the whole move of an address
 * (0.1 ms against 3 to 12 ms on a busy machine), and is delayed most when everything is slow.
 *
 * What is still on its way to it when this process dies would be done after the guard has cleaned up. So the program's id
 * stands in a file, and whoever takes the address away ends the program first (`UNDO_SCRIPT`).
 */
export interface LinkRow {
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly addresses: readonly { readonly local: string; readonly prefixLength: number }[];
}

export interface Exchange {
  readonly rows: readonly Readonly<Record<string, unknown>>[];
  /** What it said of commands that failed; empty: nothing. */
  readonly complaint: string;
}

/** Both outputs are one, so that a complaint stands before the answer that follows it. */
const ONE_OUTPUT = 'exec "$0" "$1" -json -force -batch - 2>&1';
const EXCHANGE_MS = 2_000;

/**
 * Arguments: the file with the id, `ip`, its option for the family, the address. The start time tells a process from a
 * later one with the same id; one that is dead but not yet waited for does nothing any more.
 */
export const UNDO_SCRIPT = `alive() {
  read -r stat <"/proc/$1/stat" || return
  set -- "$2" \${stat##*) }
  [ "$2" != Z ] && [ "\${21}" = "$1" ]
} 2>/dev/null
{ read -r pid start <"$1"; } 2>/dev/null
if [ -n "$pid" ] && alive "$pid" "$start"; then
  kill -s KILL "$pid"
  turn=0
  while [ "$turn" -lt 50 ] && alive "$pid" "$start"; do sleep 0.01; turn=$((turn + 1)); done
fi
exec "$2" "$3" addr flush to "$4"`;

export class LinkCommands {
  readonly program: string;
  readonly #family: 4 | 6;
  readonly #idFile: string;
  #child: ChildProcessWithoutNullStreams | null = null;
  #waiting: { lines: string[]; answer: (exchange: Exchange) => void; fail: (error: Error) => void }[] = [];

  /** `idFile`: where its process id is written while it runs. */
  constructor(program: string, family: 4 | 6, idFile: string) {
    this.program = program;
    this.#family = family;
    this.#idFile = idFile;
  }

  /** Starts it, so that the first exchange need not. What is refused is tried again by that, and told then. */
  warm(): void {
    this.#running();
  }

  /**
   * Carries out `commands` and then shows: what `ip -batch` takes, one a line. Rejects when it cannot be started or does
   * not answer.
   */
  exchange(commands: readonly string[], show: string): Promise<Exchange> {
    const child = this.#running();
    if (child instanceof Error)
      return Promise.reject(new Error(`${this.program} cannot be started: ${refusalText(child)}`));
    return new Promise<Exchange>((resolve, reject) => {
      // Behind what waits in the pipe: it may be us who stood still.
      const callLimitOff = afterOwnTime(EXCHANGE_MS, () =>
        setImmediate(() => isOpen && child.kill("SIGKILL")),
      );
      let isOpen = true;
      const over =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          isOpen = false;
          callLimitOff();
          then(value);
        };
      this.#waiting.push({ lines: [], answer: over(resolve), fail: over(reject) });
      child.stdin.write(`${[...commands, show].join("\n")}\n`);
    });
  }

  /** The interfaces that `show` names (an `addr show` with its arguments), after `commands`. */
  async links(commands: readonly string[], show: string): Promise<{ links: LinkRow[]; complaint: string }> {
    const { rows, complaint } = await this.exchange(commands, show);
    return { links: rows.flatMap(readLink), complaint };
  }

  close(): void {
    this.#child?.stdin.end();
    this.#child = null;
  }

  #running(): ChildProcessWithoutNullStreams | Error {
    const child = this.#child ?? this.#start();
    if (!(child instanceof Error)) this.#child = child;
    return child;
  }

  #start(): ChildProcessWithoutNullStreams | Error {
    const child = startOrRefusal(() =>
      spawn("/bin/sh", ["-c", ONE_OUTPUT, this.program, `-${this.#family}`], {
        cwd: "/",
        env: BARE_ENVIRONMENT,
        stdio: "pipe",
        detached: true,
      }),
    );
    if (child instanceof Error) return child;
    letGo(child);
    let rest = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#take(line);
    });
    const ended = (problem: string) => {
      if (this.#child === child) this.#child = null;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const { fail, lines } of waiting) fail(new Error([...lines, problem].join("; ")));
    };
    child.on("error", (error) => ended(refusalText(error)));
    child.on("exit", () => ended(`${this.program} ended or did not answer`));
    child.stdin.on("error", () => {});
    const problem = child.pid === undefined ? null : this.#record(child.pid);
    if (problem === null) return child;
    // Nobody could end it before an undo.
    child.kill("SIGKILL");
    return problem;
  }

  #record(pid: number): Error | null {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
      mkdirSync(dirname(this.#idFile), { recursive: true, mode: 0o700 });
      writeFileSync(this.#idFile, `${pid} ${start}\n`, { mode: 0o600 });
      return null;
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  #take(line: string): void {
    const [first] = this.#waiting;
    if (first === undefined || line === "") return;
    if (!line.startsWith("[")) {
      // "Command failed -:3" says nothing to whoever does not see our lines.
      if (!line.startsWith("Command failed")) first.lines.push(line);
      return;
    }
    this.#waiting.shift();
    const rows = JSON.parse(line) as Record<string, unknown>[];
    first.answer({ rows, complaint: first.lines.join("; ") });
  }
}

/** Lets a child run without keeping this process for it; it ends with our end of its pipe. */
export function letGo(child: ChildProcess): void {
  child.unref();
  for (const stream of child.stdio)
    if (stream !== null && stream !== undefined && "unref" in stream && typeof stream.unref === "function")
      stream.unref();
}

function readLink(row: Readonly<Record<string, unknown>>): LinkRow[] {
  const { ifname, flags, addr_info: addresses } = row;
  if (typeof ifname !== "string" || !Array.isArray(flags) || !Array.isArray(addresses)) return [];
  return [
    {
      ifname,
      flags: flags.map(String),
      // What a filter hides is an empty object.
      addresses: addresses.flatMap((each: { local?: unknown; prefixlen?: unknown }) =>
        typeof each.local === "string" && typeof each.prefixlen === "number"
          ? [{ local: each.local, prefixLength: each.prefixlen }]
          : [],
      ),
    },
  ];
}

export const hasCarrier = ({ flags }: LinkRow): boolean => flags.includes("LOWER_UP") && flags.includes("UP");

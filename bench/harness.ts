import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";

/**
 * Times whole processes side by side: the contestants of one question run in turn, round after round, so that
 * whatever else the machine does meets all of them alike. What is printed is the median and the range; what counts
 * is the ratio within one run.
 */
export interface Contestant {
  readonly name: string;
  /** Brings everything into the state before the run; not timed. */
  readonly prepare?: (round: number) => Promise<void> | void;
  /** What is timed. */
  readonly run: (round: number) => Promise<Sample>;
}

/** What one run cost: wall and processor time in milliseconds, the largest process's memory in bytes. */
export interface Sample {
  readonly wallMs: number;
  readonly cpuMs: number | null;
  readonly peakBytes: number | null;
  /** Further figures of the run, by name. */
  readonly notes?: Readonly<Record<string, number>>;
}

export interface Measured {
  readonly name: string;
  readonly samples: readonly Sample[];
}

/** The middle value; of an even count the lower one, so that it is always a value that was seen. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN;
}

/** Runs all contestants in turn for some rounds, after one round that only warms the caches where asked for. */
export async function sideBySide(
  contestants: readonly Contestant[],
  options: { readonly rounds: number; readonly warmUp: boolean },
): Promise<Measured[]> {
  const samples = contestants.map((): Sample[] => []);
  for (let round = options.warmUp ? -1 : 0; round < options.rounds; round++) {
    for (const [index, contestant] of contestants.entries()) {
      process.stderr.write(
        `  ${round < 0 ? "warm-up" : `round ${round + 1}/${options.rounds}`}: ${contestant.name}\n`,
      );
      await contestant.prepare?.(round);
      const sample = await contestant.run(round);
      if (round >= 0) samples[index]?.push(sample);
    }
  }
  return contestants.map(({ name }, index) => ({ name, samples: samples[index] ?? [] }));
}

export interface ProcessOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Exit statuses that count as success; 0 alone unless given. */
  readonly accept?: readonly number[];
  readonly onOutput?: (text: string) => void;
}

function peakBytes(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** A process and everything below it. */
export function processTree(pid: number): number[] {
  const found = [pid];
  for (const parent of found) {
    try {
      for (const task of readdirSync(`/proc/${parent}/task`)) {
        const children = readFileSync(`/proc/${parent}/task/${task}/children`, "utf8").trim();
        if (children !== "") found.push(...children.split(" ").map(Number));
      }
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

/** Watches the memory of a process tree until stopped: the largest single process, in bytes. */
export function watchMemory(pid: number): { stop(): number } {
  let peak = 0;
  const look = () => {
    for (const member of processTree(pid)) peak = Math.max(peak, peakBytes(member));
  };
  const timer = setInterval(look, 20);
  return {
    stop() {
      clearInterval(timer);
      look();
      return peak;
    },
  };
}

/** Runs a program to its end and says what it cost. Throws when its exit status is not an accepted one. */
export async function timeProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions = {},
): Promise<Sample & { readonly stdout: string }> {
  // `time` of bash gives user and system time of the whole tree; the program's own output stays apart from it.
  const started = process.hrtime.bigint();
  const child = spawn(
    "bash",
    ["-c", 'TIMEFORMAT="%U %S"; { time "$@" 2>&4; } 4>&2 2>&3; ', "bash", command, ...args],
    { cwd: options.cwd, env: options.env ?? process.env, stdio: ["ignore", "pipe", "pipe", "pipe"] },
  );
  const memory = child.pid === undefined ? null : watchMemory(child.pid);
  let stdout = "";
  let stderr = "";
  let times = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
    options.onOutput?.(chunk.toString());
  });
  child.stdio[3]?.on("data", (chunk: Buffer) => {
    times += chunk.toString();
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const wallMs = Number(process.hrtime.bigint() - started) / 1e6;
  const peak = memory?.stop() ?? null;
  if (!(options.accept ?? [0]).includes(status ?? -1)) {
    throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${stderr.slice(-2000)}`);
  }
  const [user = Number.NaN, system = Number.NaN] = times.trim().split(/\s+/).map(Number);
  return { wallMs, cpuMs: (user + system) * 1000, peakBytes: peak, stdout };
}

/** One line that says on what all this was measured. */
export function describeMachine(): string {
  const [cpu] = cpus();
  const debian = existsSync("/etc/debian_version")
    ? `Debian ${readFileSync("/etc/debian_version", "utf8").trim()}`
    : "";
  const gib = Math.round(totalmem() / 2 ** 30);
  return `${cpus().length} cores (${cpu?.model.trim() ?? "unknown"}), ${gib} GiB, ${debian}, Linux ${release()}, Node ${process.versions.node}`;
}

/** A duration with three significant digits. */
export function formatMs(ms: number): string {
  return ms >= 1000 ? `${(ms / 1000).toPrecision(3)} s` : `${ms.toPrecision(3)} ms`;
}

/** A quotient of medians with two decimals. */
export function ratio(ours: Measured, theirs: Measured): number {
  return median(ours.samples.map((s) => s.wallMs)) / median(theirs.samples.map((s) => s.wallMs));
}

/** A Markdown table of what was measured: median, range, processor time, memory. */
export function toTable(measured: readonly Measured[]): string {
  const rows = measured.map(({ name, samples }) => {
    const walls = samples.map((s) => s.wallMs);
    const cpu = samples.map((s) => s.cpuMs).filter((ms) => ms !== null && Number.isFinite(ms)) as number[];
    const peak = samples.map((s) => s.peakBytes).filter((bytes) => bytes !== null) as number[];
    return `| ${name} | ${formatMs(median(walls))} | ${formatMs(Math.min(...walls))} – ${formatMs(Math.max(...walls))} | ${
      cpu.length === 0 ? "–" : formatMs(median(cpu))
    } | ${peak.length === 0 ? "–" : `${Math.round(Math.max(...peak) / 2 ** 20)} MiB`} |`;
  });
  return [
    "| | median | range | processor | largest process |",
    "| --- | --- | --- | --- | --- |",
    ...rows,
  ].join("\n");
}

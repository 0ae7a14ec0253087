/**
 * What an update tells while it runs. One callback takes every event; whoever shows them decides how often to paint.
 */
export type ProgressPhase =
  | "recover"
  | "wait"
  | "check"
  | "updater"
  | "prepare"
  | "manifests"
  | "compare"
  | "fetch"
  | "switch"
  | "record"
  | "verify";

export type ProgressEvent =
  | { readonly kind: "phase"; readonly phase: ProgressPhase; readonly detail: string }
  | {
      readonly kind: "amount";
      readonly phase: ProgressPhase;
      readonly files: number;
      readonly filesTotal: number;
      readonly bytes: number;
      readonly bytesTotal: number;
      /** Over the last seconds; null until there is something to divide. */
      readonly bytesPerSecond: number | null;
    }
  /** Something that the reader should know, although the run goes on. */
  | { readonly kind: "notice"; readonly message: string };

export type ProgressListener = (event: ProgressEvent) => void;

/** How often amounts are told at most. */
const TELL_EVERY_MS = 100;
/** Over which time the rate is measured. */
const RATE_WINDOW_MS = 5000;

/** Counts files and bytes of one phase and tells them at a bearable pace. */
export class ProgressMeter {
  readonly #listener: ProgressListener;
  readonly #phase: ProgressPhase;
  readonly #monotonic: () => number;
  readonly #samples: { readonly at: number; readonly bytes: number }[] = [];
  #files = 0;
  #bytes = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  filesTotal: number;
  bytesTotal: number;

  constructor(
    listener: ProgressListener,
    phase: ProgressPhase,
    totals: { readonly files: number; readonly bytes: number },
    monotonic: () => number,
  ) {
    this.#listener = listener;
    this.#phase = phase;
    this.#monotonic = monotonic;
    this.filesTotal = totals.files;
    this.bytesTotal = totals.bytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(files: number, bytes: number): void {
    this.#files += files;
    this.#bytes += bytes;
    const at = this.#monotonic();
    if (at - this.#toldAt < TELL_EVERY_MS) return;
    this.#tell(at);
  }

  /** Tells the last amount, whenever the one before was. */
  end(): void {
    this.#tell(this.#monotonic());
  }

  #tell(at: number): void {
    this.#toldAt = at;
    this.#samples.push({ at, bytes: this.#bytes });
    while ((this.#samples[0]?.at ?? at) < at - RATE_WINDOW_MS) this.#samples.shift();
    const first = this.#samples[0];
    const rate =
      first === undefined || at <= first.at ? null : ((this.#bytes - first.bytes) * 1000) / (at - first.at);
    this.#listener({
      kind: "amount",
      phase: this.#phase,
      files: this.#files,
      filesTotal: this.filesTotal,
      bytes: this.#bytes,
      bytesTotal: this.bytesTotal,
      bytesPerSecond: rate,
    });
  }
}

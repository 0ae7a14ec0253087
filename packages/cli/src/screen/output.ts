import { describeTerminal, paint, printable, type Style, type Terminal } from "@lockstep/platform";

/**
 * Where a command's words go. Data goes to standard output, everything else to standard error, so that a script can
 * take the one without the other; with `--json` the data is one document and the rest stays as it is.
 */
export class Output {
  readonly json: boolean;
  /** The terminal behind standard output, for the layout of data. */
  readonly data: Terminal = describeTerminal(process.stdout, process.env);
  /** The terminal behind standard error, for progress and remarks. */
  readonly remarks: Terminal = describeTerminal(process.stderr, process.env);
  readonly quiet: boolean;
  /** Called before anything is printed: whoever has drawn something that moves takes it away, or text would stick to it. */
  beforeText: () => void = () => {};

  constructor(options: { readonly json?: boolean; readonly quiet?: boolean }) {
    this.json = options.json === true;
    this.quiet = options.quiet === true;
  }

  /** A line of data for people; nothing where a document is wanted. */
  line(text = ""): void {
    if (this.json) return;
    this.beforeText();
    process.stdout.write(`${text}\n`);
  }

  /** The document of this run, or one of a stream of them; nothing where people read. */
  document(value: unknown): void {
    if (!this.json) return;
    this.beforeText();
    process.stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** A remark on what is happening. */
  note(text: string): void {
    if (this.quiet) return;
    this.beforeText();
    process.stderr.write(`${text}\n`);
  }

  /**
   * Something that the reader should know although it works. Not silenced by `--quiet`. What others said of themselves
   * (hosts, queues, reasons) may stand in it: it is made safe here.
   */
  warn(text: string): void {
    this.beforeText();
    process.stderr.write(`${paint(this.remarks, "yellow", "warning:")} ${printable(text, "lines")}\n`);
  }

  paintData(style: Style, text: string): string {
    return paint(this.data, style, text);
  }

  paintRemark(style: Style, text: string): string {
    return paint(this.remarks, style, text);
  }
}

import { readFileSync, rmSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { createInterface } from "node:readline";
import type { FileEntry, Sha256 } from "@lockstep/core";
import { type Content, FileSources, planStep, stepContents, writeStep } from "@lockstep/delta";
import { parseManifest } from "@lockstep/protocol/wire";
import type { ContentFile, FromMaker, ToMaker } from "./messages.ts";
import { StepOutput } from "./step-output.ts";

// Makes one step and ends. A process of its own: it takes seconds of a processor and hundreds of megabytes, which the hub
// must not miss while others wait for it, and gets back when this ends.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL);

/** Who started this. Another one later: the hub was killed, and nobody would take the step, or remove it. */
const hub = process.ppid;

let from: readonly FileEntry[] = [];
let to: readonly FileEntry[] = [];

function take(message: ToMaker): void {
  if (message.kind === "plan") {
    from = parseManifest(readFileSync(message.from, "utf8")).entries;
    to = parseManifest(readFileSync(message.to, "utf8")).entries;
    say({ kind: "needs", contents: needed() });
  } else make(message.contents, message.target);
}

function needed(): Content[] {
  const contents = stepContents(from, to);
  const bases = new Set<number>();
  const results = new Set<number>();
  for (const unit of planStep(from, to, contents)) {
    for (const number of unit.bases) bases.add(number);
    for (const number of unit.results) results.add(number);
  }
  return [
    ...contents.bases.filter((_, number) => bases.has(number)),
    ...contents.results.filter((_, number) => results.has(number)),
  ];
}

function make(contents: Readonly<Record<Sha256, ContentFile>>, target: string): void {
  const fileOf = ({ sha256 }: Content): ContentFile => {
    const file = contents[sha256];
    if (file === undefined) throw new Error(`content ${sha256} was not given`);
    return file;
  };
  const files = new FileSources();
  const output = new StepOutput(target);
  const made = writeStep(
    from,
    to,
    (content) => files.source(fileOf(content).path, content.size),
    (content) => fileOf(content).wholeBytes,
    output,
  );
  files.close();
  if (process.ppid !== hub) process.exit(1);
  if (made !== null) output.finish(made.head);
  output.close();
  if (process.ppid !== hub) {
    rmSync(target, { force: true });
    process.exit(1);
  }
  say({ kind: "made", bytes: made?.bytes ?? null, results: made?.results ?? 0 });
  process.stdin.destroy();
}

function say(message: FromMaker): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

createInterface({ input: process.stdin }).on("line", (line) => take(JSON.parse(line) as ToMaker));

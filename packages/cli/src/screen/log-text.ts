import type { LogRecord } from "@lockstep/updater";
import { formatBytes } from "./format.ts";

/** Enough of a digest to tell two apart; `--json` has all of it. */
const DIGEST_SHOWN = 12;
/** What has a column of its own, or is told together with another fact. */
const TOLD = new Set(["time", "run", "action", "path", "result", "reason", "chain"]);

/** What a record of update.log says beside its columns, for people: facts that are there, in the units of people. */
export function describeRecord(record: LogRecord): string {
  const told = new Set(TOLD);
  const words: string[] = [];
  const add = (names: readonly string[], text: string) => {
    for (const name of names) told.add(name);
    if (text !== "") words.push(text);
  };
  if (record.reason !== null) words.push(record.reason);
  if ("to" in record) add(["from", "to"], revisions(record.from ?? null, record.to ?? null));
  if ("sha256" in record || "formerSha256" in record) {
    const before = content(record.formerSize, record.formerSha256);
    const after = content(record.size, record.sha256);
    add(
      ["size", "sha256", "formerSize", "formerSha256"],
      before === "" ? after : `${before} -> ${after === "" ? "none" : after}`,
    );
  }
  if (typeof record.switchMs === "number") add(["switchMs"], `switched in ${record.switchMs} ms`);
  if (typeof record.receivedBytes === "number")
    add(["receivedBytes"], `${formatBytes(record.receivedBytes)} received`);
  for (const [name, value] of Object.entries(record))
    if (!told.has(name) && value !== null) words.push(`${name} ${String(value)}`);
  return words.join(", ");
}

type Fact = LogRecord[string] | undefined;

function revisions(from: Fact, to: Fact): string {
  return from === null || from === undefined
    ? `revision ${to ?? "none"}`
    : `revision ${from} -> ${to ?? "none"}`;
}

function content(size: Fact, sha256: Fact): string {
  const words = [
    typeof size === "number" ? formatBytes(size) : "",
    typeof sha256 === "string" ? sha256.slice(0, DIGEST_SHOWN) : "",
  ];
  return words.filter((word) => word !== "").join(" ");
}

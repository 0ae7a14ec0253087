import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import type { VirtualServerDefinition } from "@lockstep/core";
import { readToml } from "@lockstep/protocol/toml-lines";
import type { Fault } from "@lockstep/protocol/wire";

/**
 * Whether the configuration file of a job service says what its virtual server needs (S9): one of its queues has the
 * virtual server's name, and none has the name of a node, for that queue would stay behind with the node. A file of
 * another service has no queues and is not judged; nor is one that is not on this machine.
 */
export async function checkQueue(
  { name, config }: VirtualServerDefinition,
  nodes: readonly string[],
): Promise<Fault[]> {
  if (config === null) return [];
  let text: string;
  try {
    text = await readFile(config.path, "utf8");
  } catch {
    return [];
  }
  return findQueueFaults(text, name, nodes).map(({ line, problem }) => ({
    where: `${basename(config.path)}:${line}`,
    problem,
  }));
}

/** As checkQueue, of a text. */
export function findQueueFaults(
  text: string,
  name: string,
  nodes: readonly string[],
): { readonly line: number; readonly problem: string }[] {
  const read = readToml(text);
  if (read.kind === "fault") return [];
  const queues = queuesOf(read.value);
  const lineOf = (index: number) => read.lines.lineOf(["JobServiceDestination", index, "Queue"]);
  const faults = queues.flatMap((queue, index) => {
    const node = nodes.find((each) => isSame(each, queue));
    return node === undefined
      ? []
      : [{ line: lineOf(index), problem: `Queue is ${queue}, the name of a node; it would not move along` }];
  });
  if (queues.length === 0 || queues.some((queue) => bare(queue) === name)) return faults;
  return [
    ...faults,
    { line: lineOf(0), problem: `no Queue is ${name}; found ${queues.join(", ")}, as they are spelt` },
  ];
}

function queuesOf(document: unknown): string[] {
  const destinations = isRecord(document) ? document.JobServiceDestination : undefined;
  if (!Array.isArray(destinations)) return [];
  return destinations.map((each: unknown) =>
    isRecord(each) && typeof each.Queue === "string" ? each.Queue : "",
  );
}

/** The original writes names of servers with backslashes before them. */
const bare = (queue: string) => queue.replace(/^\\+/, "");
const isSame = (a: string, b: string) => a.toLowerCase() === bare(b).toLowerCase();
const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

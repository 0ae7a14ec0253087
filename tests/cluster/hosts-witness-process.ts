import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { at, ClusterDocuments, MEMBERS, ORDERS, openCoordination, REPORTS } from "@lockstep/cluster";
import { CHECKPOINT_KEYS, CHECKPOINT_MANIFEST, newestManifestKey } from "@lockstep/core";
import { systemClock } from "@lockstep/platform";
import { labNow } from "../support/lab.ts";

/**
 * What the test cannot reach, because it is on no host: the store, and what services write to. Runs on the client's host,
 * reads questions and writes answers, a line of JSON each.
 */
const { endpoints, prefix, port, server } = JSON.parse(process.argv[2] ?? "{}") as {
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly port: number;
  readonly server: string;
};
const CALL_MS = 3_000;
const TRIES = 100;
const coordination = await patiently(() =>
  openCoordination({ store: "etcd", endpoints, prefix, callMs: CALL_MS }, systemClock),
);
const documents = new ClusterDocuments(coordination.documents);

/** A receiver as anchors/cluster.md wants one: it refuses a lower token after a higher one. */
const arrived: object[] = [];
let highest = 0;
const receiver = createServer((call, answer) => {
  let text = "";
  call.setEncoding("utf8");
  call.on("data", (part: string) => {
    text += part;
  });
  call.on("end", () => {
    const write = JSON.parse(text) as { token: number };
    const isAccepted = write.token >= highest;
    highest = Math.max(highest, write.token);
    arrived.push({ ...write, at: labNow(), isAccepted });
    answer.writeHead(isAccepted ? 200 : 409, { connection: "close" }).end();
  });
});
receiver.listen({ port, host: "::" });

const ANSWERS: Readonly<Record<string, (node: string | null) => Promise<unknown>>> = {
  history: () => documents.history(),
  reports: async () => Object.fromEntries((await documents.list(REPORTS)).found),
  record: async () => (await coordination.read(server)).record,
  /** By path: the hash of each file of the settings, as the store has them. */
  settings: async () => {
    const manifests = await coordination.readValues(server, CHECKPOINT_KEYS.manifests);
    const newest = CHECKPOINT_MANIFEST.parse(manifests.get(newestManifestKey(manifests.keys()) ?? "") ?? "");
    return newest.ok
      ? Object.fromEntries(newest.value.entries.map(({ path, sha256 }) => [path, sha256]))
      : {};
  },
  arrived: () => Promise.resolve(arrived),
  order: async (node) =>
    (
      await documents.change(at(ORDERS, server), (present) => ({
        ...{ to: node, by: "test", at: Date.now() },
        kind: "move" as const,
        number: (present?.number ?? 0) + 1,
      }))
    )?.number,
  /** Nothing here is about quarantine. */
  forgive: async () => {
    for (const node of (await documents.members()).found.keys())
      await documents.change(at(MEMBERS, node), (member) =>
        member === null || (member.exits.length === 0 && member.quarantinedUntil === null)
          ? member
          : { ...member, exits: [], quarantinedUntil: null },
      );
  },
};

const refuse = () => Promise.reject(new Error("there is no answer to that"));

/** A call may meet a member of the store that has just been cut off. */
async function patiently<T>(answer: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await answer();
    } catch (error) {
      if (tries === TRIES) throw error;
    }
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { id, what, node } = JSON.parse(line) as { id: number; what: string; node: string | null };
    void patiently(() => (ANSWERS[what] ?? refuse)(node)).then(
      (answer) => process.stdout.write(`${JSON.stringify({ id, answer: answer ?? null })}\n`),
      (error: unknown) => process.stdout.write(`${JSON.stringify({ id, problem: String(error) })}\n`),
    );
  })
  .once("close", () => process.exit(0));
process.stdout.write(`${JSON.stringify({ id: 0, answer: "begun" })}\n`);

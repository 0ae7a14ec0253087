import { connect } from "node:net";
import { labNow } from "./lab.ts";
import type { ProbeRecord, ProbeTarget } from "./lab-probe.ts";

// The probe as it runs on a host of the lab; ends when its input does, after the last question has its answer or its limit.
const { address, port, everyMs, limitMs } = JSON.parse(process.argv[2] ?? "{}") as ProbeTarget;
const records: ProbeRecord[] = [];
const seen = new Set<string>();
const begun = labNow();
let asked = 0;
let open = 0;
let isStopping = false;

function ask(): void {
  const sentAt = labNow();
  let body = "";
  let isDone = false;
  open += 1;
  const socket = connect({ host: address, port });
  const end = (by: string | null) => {
    if (isDone) return;
    isDone = true;
    clearTimeout(limit);
    records.push({ sentAt, doneAt: labNow(), by });
    const what = by === null ? "silence" : "answer";
    if (!seen.has(what)) process.stdout.write(`${what}\n`);
    seen.add(what);
    socket.destroy();
    open -= 1;
    finish();
  };
  const limit = setTimeout(() => end(null), limitMs);
  socket.setEncoding("latin1");
  socket.on("connect", () => socket.write("GET / HTTP/1.0\r\n\r\n"));
  socket.on("data", (text: string) => {
    body += text;
  });
  socket.on("end", () => end(/\r\n\r\n(.+)$/.exec(body)?.[1] ?? null));
  socket.on("error", () => end(null));
}

function turn(): void {
  if (isStopping) return;
  // Behind time, it asks as often as it should have: the schedule is what is measured against.
  for (; asked * everyMs <= labNow() - begun; asked++) ask();
  setTimeout(turn, Math.max(0, begun + asked * everyMs - labNow()));
}

function finish(): void {
  if (isStopping && open === 0) process.stdout.write(JSON.stringify(records), () => process.exit(0));
}

process.stdin
  .on("end", () => {
    isStopping = true;
    finish();
  })
  .resume();
process.stdout.write("begun\n");
turn();

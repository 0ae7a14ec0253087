/** The thread side of worker-pool.ts: takes orders, carries them out, answers. */
import { parentPort } from "node:worker_threads";
import { carryOut, type WorkOrder } from "./work.ts";

if (parentPort === null) throw new Error("this file runs as a worker thread");
const port = parentPort;
port.on("message", (order: WorkOrder) => {
  const answer = carryOut(order);
  port.postMessage(answer, answer.kind === "encode" ? [answer.frames.buffer] : []);
});

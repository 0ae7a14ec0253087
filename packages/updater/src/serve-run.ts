import { listenForInterruption, systemClock } from "@lockstep/platform";
import { exitStatus, isLockstepError } from "@lockstep/protocol/wire";
import { type FromUpdater, TOKEN, type ToUpdater, toBody } from "./hand-over.ts";
import { locate } from "./installation.ts";
import { joinLock } from "./lock-file.ts";
import { describeProblem } from "./report.ts";
import { run } from "./run.ts";
import { update } from "./update.ts";

/** The other side of hand-over.ts: takes one run over the channel, carries it out, answers, ends. */
export async function serveRun(): Promise<number> {
  const interruption = listenForInterruption();
  const left = new AbortController();
  const signal = AbortSignal.any([interruption.signal, left.signal]);
  // A lost channel means that whoever asked has died: nothing of ours is begun then, and what was begun is finished.
  process.once("disconnect", () => left.abort());
  const say = (message: FromUpdater) =>
    new Promise<void>((resolve) => {
      const send = process.connected ? process.send?.bind(process) : undefined;
      if (send === undefined) resolve();
      else send(message, undefined, undefined, () => resolve());
    });
  const order = await new Promise<ToUpdater & { kind: "run" }>((resolve) => {
    process.on("message", (message: ToUpdater) => {
      if (message.kind === "run") resolve(message);
      else left.abort();
    });
  });
  try {
    const { request, access: asked, lockToken } = order;
    const { token, ...access } = asked;
    const lock = joinLock(locate(request.directory), lockToken, systemClock);
    const result = await run(request, {
      access: {
        ...access,
        environment: { ...process.env, ...(token === undefined ? {} : { [TOKEN]: token }) },
      },
      clock: systemClock,
      lock,
      progress: (event) => {
        void say({ kind: "progress", event });
      },
      signal,
    });
    await say({ kind: "result", result });
    return 0;
  } catch (error) {
    await say({ kind: "error", body: toBody(error) });
    return isLockstepError(error) ? exitStatus(error.code) : 1;
  } finally {
    interruption[Symbol.dispose]();
    if (process.connected) process.disconnect?.();
  }
}

/** An update by this program alone, without the command line: for a machine that has nothing but an Update.zip. */
export async function updateAlone(directory: string): Promise<number> {
  const interruption = listenForInterruption();
  try {
    const result = await update(directory, {
      access: { environment: process.env },
      selfUpdate: false,
      signal: interruption.signal,
      progress: (event) => {
        if (event.kind !== "amount") console.error(event.kind === "phase" ? event.detail : event.message);
      },
    });
    console.log(JSON.stringify(result));
    return 0;
  } catch (error) {
    console.error(describeProblem(error));
    return isLockstepError(error) ? exitStatus(error.code) : 1;
  } finally {
    interruption[Symbol.dispose]();
  }
}

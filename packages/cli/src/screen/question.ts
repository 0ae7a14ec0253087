import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { LockstepError } from "@lockstep/protocol/wire";

/** Whether a person is there to answer: both ends of the conversation are terminals and nobody automated it. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true && !process.env.CI;
}

/** Asks a question that is answered by yes or no; anything but a yes is a no. Rejects when the signal aborts. */
export async function askYesNo(question: string, signal?: AbortSignal): Promise<boolean> {
  return /^y(?:es)?$/i.test((await askText(`${question} [y/N]`, "", signal)).trim());
}

/** Asks for a text; an empty answer means the proposal. */
export async function askText(question: string, proposal: string, signal?: AbortSignal): Promise<string> {
  // Questions are no data: they go where remarks go.
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const shown = proposal === "" ? `${question} ` : `${question} [${proposal}] `;
    const answer = await (signal === undefined ? lines.question(shown) : lines.question(shown, { signal }));
    return answer === "" ? proposal : answer;
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    // While a line is edited, the terminal hands Ctrl-C over as a key.
    const pressed = error instanceof Error && "code" in error && error.code === "ABORT_ERR";
    throw pressed ? new LockstepError("INTERRUPTED", "stopped by Ctrl-C") : error;
  } finally {
    lines.close();
  }
}

/** Asks for a secret: what is typed is not shown. */
export async function askSecret(question: string): Promise<string> {
  process.stderr.write(question);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await lines.question("");
  } catch (error) {
    const pressed = error instanceof Error && "code" in error && error.code === "ABORT_ERR";
    throw pressed ? new LockstepError("INTERRUPTED", "stopped by Ctrl-C") : error;
  } finally {
    lines.close();
    process.stderr.write("\n");
  }
}

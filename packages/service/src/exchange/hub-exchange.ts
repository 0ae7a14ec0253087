import { type HubClient, invalidAnswer } from "@lockstep/client";
import type { ServiceRequest } from "@lockstep/core";
import type { Exchange, ExchangeAnswer } from "@lockstep/protocol/wire";

/** Who asks: what an exchange says beside what the queue decides. */
export type ExchangeIdentity = Pick<
  Exchange,
  "queue" | "instance" | "machine" | "revision" | "installation" | "version" | "statusUrl" | "node" | "term"
>;

const PATH = "/v1/jobs/exchange";
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;

/**
 * One exchange over HTTP. Throws what the hub said by its code, HUB_UNREACHABLE, HUB_ANSWER_INVALID, INTERRUPTED.
 * It is never repeated here: a request whose answer was lost is given up, and the next one says so.
 */
export async function exchange(
  hub: HubClient,
  identity: ExchangeIdentity,
  request: ServiceRequest,
  signal: AbortSignal,
): Promise<ExchangeAnswer> {
  const message: Exchange = {
    ...identity,
    sequence: request.sequence,
    answered: request.answered,
    holding: [...request.holding],
    started: [...request.started],
    results: [...request.results],
    want: { ...request.want },
    waitMs: request.waitMs,
  };
  const { body } = await hub.connection.read(
    { method: "POST", path: PATH, body: JSON.stringify(message), signal, waitMs: request.waitMs },
    ANSWER_BYTES_MAX,
  );
  const text = body.toString("utf8");
  const fault = (problem: string, cause?: unknown) =>
    invalidAnswer(
      hub.connection.url.origin,
      PATH,
      problem,
      "an answer of a hub of this version",
      text.slice(0, 40),
      cause,
    );
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw fault("it is not JSON", cause);
  }
  const problem = findProblem(answer, request.sequence);
  if (problem !== null) throw fault(problem);
  return answer as ExchangeAnswer;
}

/** What the decision relies on is looked at here; the schemas themselves would cost more memory than the service. */
function findProblem(value: unknown, sequence: number): string | null {
  if (typeof value !== "object" || value === null) return "it is no object";
  const answer = value as Readonly<Record<string, unknown>>;
  if (answer.sequence !== sequence) return `it answers request ${String(answer.sequence)}`;
  if (!isCount(answer.leaseMs) || answer.leaseMs === 0) return "leaseMs";
  if (!isCount(answer.revision)) return "revision";
  if (typeof answer.updating !== "boolean") return "updating";
  if (answer.withheld !== null && typeof answer.withheld !== "string") return "withheld";
  if (!isListOf(answer.confirmed, isCount)) return "confirmed";
  if (!isListOf(answer.lost, isCount)) return "lost";
  if (!isListOf(answer.results, (each) => isRecord(each) && isCount(each.claim))) return "results";
  return isListOf(answer.steps, isStep) ? null : "steps";
}

function isStep(value: unknown): boolean {
  return (
    isRecord(value) &&
    isCount(value.id) &&
    isCount(value.claim) &&
    isCount(value.priority) &&
    isCount(value.attempt) &&
    typeof value.name === "string" &&
    typeof value.component === "string" &&
    typeof value.task === "string" &&
    typeof value.idempotencyKey === "string" &&
    (value.execution === "internal" || value.execution === "external") &&
    (value.onCrash === "rerun" || value.onCrash === "freeze") &&
    (value.timeLimitMs === null || isCount(value.timeLimitMs)) &&
    isRecord(value.process) &&
    isCount(value.process.id) &&
    typeof value.process.name === "string" &&
    isRecord(value.parameters) &&
    isListOf(value.hidden, isText) &&
    (value.secrets === undefined || isListOf(value.secrets, isText)) &&
    (value.waitedMs === undefined || isCount(value.waitedMs))
  );
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;
const isText = (value: unknown) => typeof value === "string";
const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isListOf = (value: unknown, accepts: (each: unknown) => boolean) =>
  Array.isArray(value) && value.every(accepts);

import { closed, documentKind, listOf, oneOf, orNull, textLike, textUpTo, whole } from "./document-shape.ts";

/**
 * What a node found out about its own machine: whether everything is there that a node of this cluster needs. A command
 * on another machine cannot look for tools, permissions or a service's files there; so each daemon looks from time to
 * time and lays down what it found.
 */
export interface NodeExamination {
  readonly node: string;
  /** Wall-clock milliseconds, for people. */
  readonly at: number;
  readonly findings: readonly NodeFinding[];
}

/** One thing that was looked at. `failed` keeps the node from doing its part; a warning does not. */
export interface NodeFinding {
  /** What was looked at: `tools`, `store`, `service ORDERS`. */
  readonly id: string;
  readonly state: "ok" | "warning" | "failed";
  readonly detail: string;
  /** What to do about it. */
  readonly hint: string | null;
  /** Digest of something that must be equal on all nodes, such as the service's program; null: nothing of the kind. */
  readonly mark: string | null;
}

const FINDINGS_MAX = 1_000;
const TEXT_MAX = 2_000;

/** The document under `examined/<node>`. */
export const NODE_EXAMINATION = documentKind<NodeExamination>(
  "lockstep-examination/1",
  closed<NodeExamination>({
    node: textLike(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, "the name of a node"),
    at: whole(),
    findings: listOf(
      closed<NodeFinding>({
        id: textUpTo(200),
        state: oneOf(["ok", "warning", "failed"]),
        detail: textUpTo(TEXT_MAX),
        hint: orNull(textUpTo(TEXT_MAX)),
        mark: orNull(textUpTo(64)),
      }),
      FINDINGS_MAX,
    ),
  }),
);

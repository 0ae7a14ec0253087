/**
 * Whether a service may speak for its queue: one run of one service at a time, its *instance*.
 *
 * A new instance takes the queue over from the former one, which is refused from then on. On the same machine that
 * happens at once: its service keeps its state directory locked, so the former run is gone. On another machine the former
 * one may be alive and working, so as long as its lease runs and it has steps the new one has to wait, unless it shows a
 * higher term: then the cluster has made sure.
 */
export interface AdmittedServer {
  readonly instance: string | null;
  readonly former: readonly string[];
  readonly machine: string;
  readonly term: number;
  readonly sequence: number;
  readonly answered: number;
  /** The lease of `instance` has not run out. */
  readonly alive: boolean;
  /** Claims that `instance` holds and the request does not carry over. */
  readonly held: number;
}

export interface AdmissionRequest {
  readonly instance: string;
  readonly machine: string;
  readonly sequence: number;
  readonly answered: number;
  readonly term: number | null;
}

export type Admission =
  | { readonly kind: "current" }
  /** A request that a newer one of the same instance has overtaken: it may tell, but is given nothing. */
  | { readonly kind: "overtaken" }
  | { readonly kind: "takeover" }
  | { readonly kind: "replaced" }
  | { readonly kind: "stale" }
  | { readonly kind: "term-stale" }
  | { readonly kind: "taken" };

/** Admits a request or says why not. `server`: null for a queue that nobody served yet. */
export function decideAdmission(server: AdmittedServer | null, request: AdmissionRequest): Admission {
  if (server === null) return { kind: "takeover" };
  if (request.term !== null && request.term < server.term) return { kind: "term-stale" };
  if (server.instance === request.instance) {
    if (request.sequence <= server.answered) return { kind: "stale" };
    return { kind: request.sequence < server.sequence ? "overtaken" : "current" };
  }
  if (server.former.includes(request.instance)) return { kind: "replaced" };
  const fenced = request.term !== null && request.term > server.term;
  const apart = server.machine !== request.machine && !fenced;
  if (server.instance !== null && apart && server.alive && server.held > 0) return { kind: "taken" };
  return { kind: "takeover" };
}

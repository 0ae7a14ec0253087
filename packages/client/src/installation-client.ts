import {
  type EnrolmentOrder,
  type EnrolmentRequest,
  type EnrolmentSecret,
  type EnrolmentStatus,
  isLockstepError,
  type OrderAnswer,
  type OrderList,
  type OrderRequest,
  type PermitRequest,
  type SessionGrant,
  type SessionRequest,
} from "@lockstep/protocol/wire";
import { checkMembers } from "./answers.ts";
import type { HubConnection, RequestDescription } from "./connection.ts";
import { invalidAnswer } from "./failures.ts";
import type { CallOptions } from "./hub-client.ts";
import { query } from "./query.ts";

const JSON_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Who an installation is and what it is ordered to run, as typed calls, one for each route. Throws as the calls of
 * HubClient do. What is signed is not verified here.
 */
export class InstallationClient {
  readonly #connection: HubConnection;

  constructor(hub: { readonly connection: HubConnection }) {
    this.#connection = hub.connection;
  }

  /** The order for an installation; null: there never was one. */
  async order(installation: string, options: CallOptions = {}): Promise<OrderAnswer | null> {
    const path = orderPath(installation);
    try {
      const bytes = await this.#send({ method: "GET", path, signal: options.signal });
      return bytes.length === 0 ? null : this.#readAnswer(path, bytes, ["order", "permit"]);
    } catch (error) {
      // Also a hub that knows no orders yet.
      if (isLockstepError(error, "NOT_FOUND")) return null;
      throw error;
    }
  }

  orders(options: CallOptions = {}): Promise<OrderList> {
    return this.#call("GET", "/v1/orders", undefined, ["orders"], options);
  }

  /** Orders an installation to a revision, or to the newest (null). Throws NOT_FOUND, REVISION_UNKNOWN, ORDER_REFUSED. */
  giveOrder(installation: string, request: OrderRequest, options: CallOptions = {}): Promise<OrderAnswer> {
    return this.#call("PUT", orderPath(installation), request, ["order"], options);
  }

  /** What a permit for a revision names. Throws REVISION_UNKNOWN. */
  destination(
    revision: number,
    options: CallOptions = {},
  ): Promise<{ readonly revision: number; readonly digest: string }> {
    const path = `/v1/signing/destinations/${revision}`;
    return this.#call("GET", path, undefined, ["revision", "digest"], options);
  }

  /** A permit by the release keys that are on the hub. Throws KEY_MISSING: they are elsewhere. */
  signPermit(permit: PermitRequest, options: CallOptions = {}): Promise<{ readonly permit: string }> {
    return this.#call("POST", "/v1/signing/permits", permit, ["permit"], options);
  }

  makeSecret(request: EnrolmentOrder, options: CallOptions = {}): Promise<EnrolmentSecret> {
    return this.#call("POST", "/v1/enrolments", request, ["secret", "expiresAt"], options);
  }

  status(options: CallOptions = {}): Promise<EnrolmentStatus> {
    return this.#call("GET", "/v1/enrolments", undefined, ["enrolled", "alarms"], options);
  }

  /** Throws ENROLMENT_REFUSED. */
  async enrol(installation: string, request: EnrolmentRequest, options: CallOptions = {}): Promise<void> {
    const path = `${installationPath(installation)}/enrolment`;
    await this.#send({ method: "POST", path, body: JSON.stringify(request), signal: options.signal });
  }

  /** Throws INSTALLATION_NOT_ENROLLED, INSTALLATION_DIVERGED, SESSION_REPEATED. */
  beginSession(
    installation: string,
    request: SessionRequest,
    options: CallOptions = {},
  ): Promise<SessionGrant> {
    const path = `${installationPath(installation)}/session`;
    return this.#call("POST", path, request, ["token", "expiresAt"], options);
  }

  /** Forgets the key of an installation. False: there was none. */
  async forget(installation: string, options: CallOptions = {}): Promise<boolean> {
    const path = `${installationPath(installation)}/enrolment`;
    const answer = await this.#call<{ forgotten: boolean }>(
      "DELETE",
      path,
      undefined,
      ["forgotten"],
      options,
    );
    return answer.forgotten;
  }

  /** Removes alarms: those of an installation, or all. Returns how many stood. */
  async clearAlarms(installation: string | null, options: CallOptions = {}): Promise<number> {
    const path = `/v1/alarms${query({ installation: installation ?? undefined })}`;
    return (await this.#call<{ removed: number }>("DELETE", path, undefined, ["removed"], options)).removed;
  }

  async #call<T>(
    method: RequestDescription["method"],
    path: string,
    content: unknown,
    members: readonly string[],
    { signal }: CallOptions,
  ): Promise<T> {
    const body = content === undefined ? {} : { body: JSON.stringify(content) };
    const bytes = await this.#send({ method, path, signal, ...body });
    return this.#readAnswer(path, bytes, members);
  }

  #readAnswer<T>(path: string, bytes: Buffer, members: readonly string[]): T {
    const { origin } = this.#connection.url;
    let answer: unknown;
    try {
      answer = JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw invalidAnswer(origin, path, "it is not JSON", "JSON", bytes.toString("latin1", 0, 40), cause);
    }
    const checked = checkMembers<T>(answer, members);
    if ("value" in checked) return checked.value;
    throw invalidAnswer(origin, path, checked.fault, "an answer of a hub of this version", checked.fault);
  }

  async #send(description: RequestDescription): Promise<Buffer> {
    return (await this.#connection.read(description, JSON_BYTES_MAX)).body;
  }
}

function installationPath(installation: string): string {
  return `/v1/installations/${encodeURIComponent(installation)}`;
}

function orderPath(installation: string): string {
  return `/v1/orders/${encodeURIComponent(installation)}`;
}

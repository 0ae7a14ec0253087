import type {
  CheckVersion,
  ComponentLimit,
  ComponentLimitList,
  JobSchedule,
  JobServer,
  JobServerChange,
  JobServerList,
  JobStop,
  JobTemplate,
  ProcessDetail,
  ProcessList,
  ProcessSummary,
  Reactivate,
  Reactivated,
  ScheduleList,
  ScheduleState,
  StartedProcess,
  StartProcess,
  StoredTemplate,
  TemplateList,
} from "@lockstep/protocol/wire";
import { checkMembers } from "./answers.ts";
import type { HubConnection, RequestDescription } from "./connection.ts";
import { invalidAnswer } from "./failures.ts";
import type { CallOptions } from "./hub-client.ts";
import { query } from "./query.ts";

/**
 * What people ask of the job service, as typed calls, one for each route. Throws as the calls of HubClient do. `actor`
 * says in the histories who it was; nobody checks it.
 */
export interface ProcessQuery {
  readonly state?: string | undefined;
  readonly template?: string | undefined;
  readonly text?: string | undefined;
  readonly before?: number | undefined;
  readonly limit?: number | undefined;
}

const JSON_BYTES_MAX = 256 * 1024 * 1024;

export class JobClient {
  readonly #connection: HubConnection;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(hub: { readonly connection: HubConnection }, actor: string | null = null) {
    this.#connection = hub.connection;
    this.#headers = actor === null ? {} : { "lockstep-actor": actor.replaceAll(/[^\x20-\x7e]/g, "?") };
  }

  templates(options: CallOptions = {}): Promise<TemplateList> {
    return this.#call("GET", "/v1/jobs/templates", undefined, ["templates"], options);
  }

  /** Throws JOB_TEMPLATE_UNKNOWN. */
  template(name: string, options: CallOptions = {}): Promise<StoredTemplate> {
    return this.#call("GET", templatePath(name), undefined, ["template"], options);
  }

  /** Throws JOB_TEMPLATE_INVALID. */
  putTemplate(template: JobTemplate, options: CallOptions = {}): Promise<StoredTemplate> {
    return this.#call("PUT", templatePath(template.name), template, ["template"], options);
  }

  /** Throws JOB_TEMPLATE_UNKNOWN, JOB_TEMPLATE_IN_USE. */
  async removeTemplate(name: string, options: CallOptions = {}): Promise<void> {
    await this.#send({ method: "DELETE", path: templatePath(name), signal: options.signal });
  }

  /** Throws JOB_TEMPLATE_UNKNOWN, JOB_TEMPLATE_INVALID, JOB_START_INVALID. */
  start(order: StartProcess, options: CallOptions = {}): Promise<StartedProcess> {
    return this.#call("POST", "/v1/jobs/processes", order, ["process", "created"], options);
  }

  /** The newest first, a page at a time. */
  processes(filter: ProcessQuery = {}, options: CallOptions = {}): Promise<ProcessList> {
    const path = `/v1/jobs/processes${query({ ...filter })}`;
    return this.#call("GET", path, undefined, ["processes", "next"], options);
  }

  /** With its steps and every try. Throws JOB_PROCESS_UNKNOWN. */
  process(id: number, options: CallOptions = {}): Promise<ProcessDetail> {
    return this.#call("GET", `/v1/jobs/processes/${id}`, undefined, ["process", "steps"], options);
  }

  /** Throws JOB_PROCESS_UNKNOWN. */
  processSummary(id: number, options: CallOptions = {}): Promise<ProcessSummary> {
    const path = `/v1/jobs/processes/${id}/summary`;
    return this.#call("GET", path, undefined, ["state", "steps"], options);
  }

  /** Throws JOB_PROCESS_UNKNOWN, JOB_PROCESS_ENDED. */
  cancel(id: number, options: CallOptions = {}): Promise<ProcessSummary> {
    return this.#call("POST", `/v1/jobs/processes/${id}/cancel`, {}, ["state"], options);
  }

  reactivate(order: Reactivate, options: CallOptions = {}): Promise<Reactivated> {
    return this.#call("POST", "/v1/jobs/reactivate", order, ["steps"], options);
  }

  servers(options: CallOptions = {}): Promise<JobServerList> {
    return this.#call("GET", "/v1/jobs/servers", undefined, ["servers", "revision"], options);
  }

  changeServer(queue: string, change: JobServerChange, options: CallOptions = {}): Promise<JobServer> {
    return this.#call("PUT", serverPath(queue), change, ["queue", "state"], options);
  }

  /** Throws JOB_SERVER_UNKNOWN. */
  checkVersion(queue: string, options: CallOptions = {}): Promise<CheckVersion> {
    return this.#call("POST", `${serverPath(queue)}/check-version`, {}, ["process", "detail"], options);
  }

  setStop(stop: JobStop, options: CallOptions = {}): Promise<JobStop> {
    return this.#call("PUT", "/v1/jobs/stopped", stop, ["stopped"], options);
  }

  limits(options: CallOptions = {}): Promise<ComponentLimitList> {
    return this.#call("GET", "/v1/jobs/components", undefined, ["limits"], options);
  }

  putLimit(limit: ComponentLimit, options: CallOptions = {}): Promise<ComponentLimitList> {
    const path = `/v1/jobs/components/${encodeURIComponent(limit.component)}`;
    return this.#call("PUT", path, limit, ["limits"], options);
  }

  schedules(options: CallOptions = {}): Promise<ScheduleList> {
    return this.#call("GET", "/v1/jobs/schedules", undefined, ["schedules"], options);
  }

  /** Throws JOB_SCHEDULE_INVALID, JOB_TEMPLATE_UNKNOWN. */
  putSchedule(schedule: JobSchedule, options: CallOptions = {}): Promise<ScheduleState> {
    const path = `/v1/jobs/schedules/${encodeURIComponent(schedule.name)}`;
    return this.#call("PUT", path, schedule, ["schedule", "nextAt"], options);
  }

  /** Throws JOB_SCHEDULE_UNKNOWN. */
  async removeSchedule(name: string, options: CallOptions = {}): Promise<void> {
    const path = `/v1/jobs/schedules/${encodeURIComponent(name)}`;
    await this.#send({ method: "DELETE", path, signal: options.signal });
  }

  async #send(description: RequestDescription): Promise<Buffer> {
    const { body } = await this.#connection.read({ ...description, headers: this.#headers }, JSON_BYTES_MAX);
    return body;
  }

  async #call<T>(
    method: RequestDescription["method"],
    path: string,
    sent: unknown,
    members: readonly string[],
    { signal }: CallOptions,
  ): Promise<T> {
    const description = { method, path, signal };
    const text = (
      await this.#send(sent === undefined ? description : { ...description, body: JSON.stringify(sent) })
    ).toString("utf8");
    const { origin } = this.#connection.url;
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch (cause) {
      throw invalidAnswer(origin, path, "it is not JSON", "JSON", text.slice(0, 40), cause);
    }
    const checked = checkMembers<T>(answer, members);
    if ("value" in checked) return checked.value;
    const expected = "an answer of a hub of this version";
    throw invalidAnswer(origin, path, checked.fault, expected, checked.fault);
  }
}

function templatePath(name: string): string {
  return `/v1/jobs/templates/${encodeURIComponent(name)}`;
}

function serverPath(queue: string): string {
  return `/v1/jobs/servers/${encodeURIComponent(queue)}`;
}

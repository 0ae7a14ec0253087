import { resolve } from "node:path";
import { listenForInterruption, paint, printable, type Style, systemClock } from "@lockstep/platform";
import type { QueueState, ServiceState } from "@lockstep/service";
import type { Command } from "commander";
import { Finished } from "../failure.ts";
import { addJsonOption, usage, wholeNumber } from "../options.ts";
import { formatDuration, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { PRODUCT_VERSION } from "../version.ts";
import { defineConfig } from "./service-config.ts";
import { addConfigOption } from "./service-file.ts";
import { defineInstall } from "./service-install.ts";

/** `lockstep service`: runs a job service, looks at one, configures it and registers it with the system. */
export function define(command: Command): void {
  addConfigOption(
    command.command("run").description("run the job service until SIGTERM or SIGINT, which drain it"),
  ).action(runTheService);
  const status = command.command("status").description("how a job service does; asks its status page");
  addJsonOption(addConfigOption(status))
    .option("--url <url>", "the page of another machine, instead of that of --config")
    .option("--user <user>", "with --url: who logs on")
    .option("--password-file <file>", "with --url: file with the password")
    .action(showStatus);
  const log = command.command("log").description("the log of a job service");
  addJsonOption(addConfigOption(log))
    .option("--last <count>", "begin with so many records (else 50)", wholeNumber("--last", 0, 1_000_000))
    .option("--follow", "go on with what is written from now on, through every rotation")
    .option("--severity <severity>", "only records of this severity and above: Info, Warning or Serious")
    .option("--match <text>", "only records with this text, whatever its case")
    .action(showLog);
  defineConfig(command);
  defineInstall(command);
  // Started by the service itself.
  addConfigOption(command.command("engine", { hidden: true })).action(async ({ config }: ConfigArgument) => {
    const { runEngineProcess } = await import("@lockstep/service/run");
    throw new Finished(
      await runEngineProcess({
        configFile: resolve(config),
        environment: process.env,
        version: PRODUCT_VERSION,
      }),
    );
  });
  command.command("worker", { hidden: true }).action(async () => {
    const { runWorker } = await import("@lockstep/service/worker");
    await runWorker();
  });
}

interface ConfigArgument {
  readonly config: string;
}

async function runTheService({ config }: ConfigArgument): Promise<void> {
  const { runService } = await import("@lockstep/service/run");
  // Not the hang-up: a service has no terminal, and follows its configuration by itself.
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort());
  const status = await runService({
    configFile: resolve(config),
    environment: process.env,
    signal: stop.signal,
    say: (line) => process.stdout.write(`${line}\n`),
  });
  throw new Finished(status);
}

interface StatusArguments extends ConfigArgument {
  readonly json?: boolean;
  readonly url?: string;
  readonly user?: string;
  readonly passwordFile?: string;
}

async function showStatus(options: StatusArguments): Promise<void> {
  const { askStatus } = await import("@lockstep/service");
  const output = new Output(options);
  const document = await askStatus(await findAddress(options));
  output.document(document);
  const { service } = document;
  const state = output.paintData(PHASE_STYLE[service.phase] ?? "bold", service.phase);
  const lines: [string, string][] = [
    ["state", service.detail === null ? state : `${state} (${printable(service.detail)})`],
    ["machine", printable(`${service.machine}, account ${document.account}, process ${document.pid}`)],
    ["version", printable(service.version)],
    ["software revision", String(service.revision ?? "none")],
    ["running for", formatDuration(Date.parse(document.time) - service.startedAtMs)],
    ["configuration", printable(service.config.file)],
  ];
  for (const [name, value] of lines) output.line(`${name.padEnd(18)} ${value}`);
  const columns = [
    { title: "queue" },
    { title: "state" },
    { title: "internal", align: "right" },
    { title: "external", align: "right" },
    { title: "waiting", align: "right" },
    { title: "results", align: "right" },
    { title: "done", align: "right" },
    { title: "failed", align: "right" },
  ] as const;
  if (!output.json) printTable(output, columns, service.queues.map(queueRow));
  tellRemarks(output, service, document.log.problem?.problem ?? null);
}

const PHASE_STYLE: Partial<Record<ServiceState["phase"], Style>> = {
  running: "green",
  updating: "yellow",
  draining: "yellow",
  failed: "red",
};

/** What says where the page of this machine's service is, and how to get in. */
const PAGE_PARAMETERS = [
  "Service.StateDirectory",
  "HTTPStatus.Address",
  "HTTPStatus.Port",
  "HTTPAuthentication.User",
  "HTTPAuthentication.PasswordFile",
  "HTTPAuthentication.PasswordEnvironment",
];

async function findAddress(options: StatusArguments) {
  const { readPassword, findStatusPage, findServiceConfig } = await import("@lockstep/service");
  if (options.url === undefined) {
    if (options.user !== undefined || options.passwordFile !== undefined)
      throw usage("--user and --password-file belong to --url; otherwise the configuration says both");
    // The page itself says what is wrong with a file that was changed and not taken over.
    const { config } = await findServiceConfig(options.config, process.env, PAGE_PARAMETERS);
    return await findStatusPage(config, process.env);
  }
  if (URL.parse(options.url) === null)
    throw usage("--url takes an address", "http://HOST:1880/", options.url);
  const password = options.passwordFile === undefined ? null : await readPassword(options.passwordFile);
  return {
    url: options.url,
    credentials: password === null ? null : { user: options.user ?? "lockstep", password },
  };
}

function queueRow(queue: QueueState): string[] {
  const { hub, internal, external } = queue;
  const state =
    hub.reachable === null
      ? "asks the hub"
      : !hub.reachable
        ? "hub out of reach"
        : hub.lastError !== null
          ? "taken over"
          : queue.updating
            ? "updating"
            : queue.withheld === null
              ? "serving"
              : "withheld";
  return [
    queue.queue,
    state,
    `${internal.used}/${internal.total}`,
    `${external.used}/${external.total}`,
    String(queue.waiting),
    String(queue.results.waiting),
    String(queue.counters.succeeded),
    String(queue.counters.failed),
  ];
}

function tellRemarks(output: Output, service: ServiceState, logProblem: string | null): void {
  const { awaitingRestart, refused } = service.config;
  if (logProblem !== null) output.warn(`the log cannot be written: ${printable(logProblem)}`);
  if (refused.length > 0)
    output.warn(`the changed configuration was not taken over: ${printable(refused.join("; "))}`);
  if (awaitingRestart.length > 0)
    output.warn(`takes effect at the next start: ${printable(awaitingRestart.join(", "))}`);
  for (const { queue, hub, withheld } of service.queues) {
    if (hub.lastError !== null)
      output.warn(printable(`${queue}: ${hub.lastError.code}: ${hub.lastError.message}`));
    if (withheld !== null) output.warn(printable(`${queue}: ${withheld}`));
  }
}

interface LogArguments extends ConfigArgument {
  readonly json?: boolean;
  readonly last?: number;
  readonly follow?: boolean;
  readonly severity?: string;
  readonly match?: string;
}

const SEVERITY_STYLE = { Info: "green", Warning: "yellow", Serious: "red" } as const;
const LAST_DEFAULT = 50;

/** Reads the file: it works whether or not the service runs. */
async function showLog(options: LogArguments): Promise<void> {
  const { findSeverity, findServiceConfig, isWanted, parseLine, readLog, SEVERITIES } = await import(
    "@lockstep/service"
  );
  const lowest = findSeverity(options.severity ?? "Info");
  if (lowest === null)
    throw usage("--severity takes a severity", SEVERITIES.join(", "), options.severity ?? "");
  const filter = { severity: lowest, text: options.match ?? "" };
  const output = new Output(options);
  const { config, faulty } = await findServiceConfig(options.config, process.env, [
    "FileLogWriter.OutPutFile",
  ]);
  if (faulty)
    output.warn(
      "the configuration has faults (lockstep service config check); a service that runs keeps the former",
    );
  using interruption = listenForInterruption();
  const lines = readLog(config.log.outputFile, {
    last: options.last ?? LAST_DEFAULT,
    follow: options.follow === true,
    signal: interruption.signal,
    clock: systemClock,
  });
  for await (const line of lines) {
    const record = parseLine(line);
    if (record === null) {
      output.line(printable(line));
      continue;
    }
    const { severity, text, timeMs } = record;
    if (!isWanted(record, filter)) continue;
    output.document({ time: new Date(timeMs).toISOString(), severity, text });
    const word = paint(output.data, SEVERITY_STYLE[severity], severity.padEnd(7));
    output.line(`${formatUtc(timeMs)}  ${word}  ${printable(text)}`);
  }
}

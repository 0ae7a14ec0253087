import { connect } from "node:net";
import { commandProblem, runBounded } from "./bounded-command.ts";
import type { ServiceProbe } from "./generic-service-settings.ts";

/** Asks the service itself whether it is well. Null: it is; else what is wrong. Ends within `limitMs`. */
export async function probeService(
  probe: ServiceProbe,
  limitMs: number,
  environment: Readonly<Record<string, string>>,
): Promise<string | null> {
  switch (probe.kind) {
    case "command": {
      const [program, ...args] = probe.words;
      return commandProblem("the probe", await runBounded(program, args, { limitMs, environment }), limitMs);
    }
    case "http":
      return probeHttp(probe.url, limitMs);
    case "tcp":
      return probeTcp(probe.host, probe.port, limitMs);
  }
}

async function probeHttp(url: string, limitMs: number): Promise<string | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(limitMs), redirect: "manual" });
    await response.body?.cancel();
    return response.status < 400 ? null : `${url} answers ${response.status}`;
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return `${url} does not answer: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
}

function probeTcp(host: string, port: number, limitMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (problem: string | null) => {
      clearTimeout(limit);
      socket.destroy();
      resolve(problem);
    };
    const limit = setTimeout(() => end(`${host}:${port} does not answer within ${limitMs} ms`), limitMs);
    socket.once("connect", () => end(null));
    socket.once("error", (error) => end(`${host}:${port} does not answer: ${error.message}`));
  });
}

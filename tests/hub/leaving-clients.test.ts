import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { createLogger, type Logger, systemClock } from "@lockstep/platform";
import { usePostgres } from "../support/postgres.ts";
import { loadAndSettle, release } from "./support/release.ts";
import { ask } from "./support/requests.ts";
import { startTestHub } from "./support/test-hub.ts";

interface Line {
  readonly level: string;
  readonly message: string;
}

/** Keeps every line, whatever its level. */
function recorder(lines: Line[]): Logger {
  const write = (line: string) => void lines.push(JSON.parse(line) as Line);
  return createLogger({ level: "debug", format: "json", write, clock: systemClock });
}

describe("clients that leave", () => {
  const server = usePostgres();

  test("before their bundle begins are no failure of the hub", async (t) => {
    const lines: Line[] = [];
    const hub = await startTestHub(t, server, { log: recorder(lines) });
    const what = release({ a: "content" });
    await loadAndSettle(hub, what);
    // Nobody can look a content up while this is held: a bundle cannot begin.
    const holder = await hub.pool.connect();
    await holder.query("begin; lock table content in access exclusive mode");
    try {
      const { hostname, port } = new URL(hub.url);
      const socket = connect(Number(port), hostname);
      await once(socket, "connect");
      const body = JSON.stringify({ sha256: [...what.contents.keys()] });
      const head = ["POST /v1/bundle HTTP/1.1", `Host: ${hostname}`, `Authorization: Bearer ${hub.token}`];
      socket.write(
        [...head, "Content-Type: application/json", `Content-Length: ${body.length}`, "", body].join("\r\n"),
      );
      await untilWaiting();
      socket.destroy();
      // What came to the hub before this question has been seen when it is answered.
      for (let question = 0; question < 3; question++) await ask(hub, "GET", "/v1/revision");
    } finally {
      await holder.query("rollback");
      holder.release();
    }
    while (!lines.some(isEnd)) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(
      lines.filter(({ level }) => level === "error"),
      [],
    );
    const next = await ask(hub, "POST", "/v1/bundle", { body: { sha256: [...what.contents.keys()] } });
    assert.equal(next.status, 200);

    async function untilWaiting(): Promise<void> {
      while (true) {
        const { rows } = await hub.pool.query(
          `select from pg_stat_activity
           where datname = current_database() and wait_event_type = 'Lock' and query like 'select d.hex%'`,
        );
        if (rows.length > 0) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  });
});

/** What the hub says of it: that somebody left, or that it failed. */
const isEnd = ({ message }: Line) => /left before its answer|a request failed/.test(message);

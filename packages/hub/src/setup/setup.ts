import { hash } from "node:crypto";
import { OWN_MODULE, UPDATE_ARCHIVE_PATH } from "@lockstep/core";
import type { Clock, Logger } from "@lockstep/platform";
import {
  encodeContentHeader,
  encodeDocument,
  encodeEnd,
  encodeMagic,
  type LoadRequest,
  type Setup,
} from "@lockstep/protocol";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { migrate, schemaState } from "../db/migrate.ts";
import { carryOutLoad } from "../repository/load.ts";
import { SOFTWARE_REVISION } from "../repository/software-revision.ts";
import { UPDATE_ARCHIVE, type UpdaterSource } from "../repository/update-archive.ts";

/**
 * The Configuration Wizard's work (S22; design.md, `lockstep setup`): first set-up and every later database update.
 *
 * Each step says by itself whether it is done, from what is there and not from a note of what was tried, so a run that
 * was interrupted anywhere goes on with whatever is left, and a run too many does nothing.
 */
export interface SetupRunner {
  /** The steps as they stand; changes nothing. */
  inspect(): Promise<Setup>;
  /** Does what is needed, in order, and stops at the first step that fails. */
  apply(): Promise<Setup>;
}

export interface SetupOptions {
  readonly pool: pg.Pool;
  readonly updater: UpdaterSource;
  /** As `PostgreSQL 18.4, embedded`. */
  readonly database: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when the schema is the hub's own, so that the hub begins to work with it. */
  readonly onSchemaReady: () => Promise<void>;
}

type Step = Setup["steps"][number];
interface StepDefinition {
  readonly id: string;
  readonly title: string;
  /** Null: done. Otherwise what there is to do. `detail` of a done step comes second. */
  inspect(): Promise<{ readonly needed: string } | { readonly done: string }>;
  apply(): Promise<void>;
}

const UPDATER_PATH = "lockstep/updater.mjs";
const UPDATER_PACKAGE = "LOCKSTEP/Updater";
/** How long a step waits for the DBQueue. */
const QUEUE_MS = 120_000;
const LOOK_AGAIN_MS = 100;

export function createSetup(options: SetupOptions): SetupRunner {
  const steps = [
    databaseStep(options),
    schemaStep(options),
    moduleStep(options),
    archiveStep(options),
    revisionStep(options),
  ];

  async function look({ id, title, inspect }: StepDefinition): Promise<Step> {
    try {
      const found = await inspect();
      return "done" in found
        ? { id, title, state: "done", detail: found.done }
        : { id, title, state: "needed", detail: found.needed };
    } catch (error) {
      return { id, title, state: "failed", detail: describe(error) };
    }
  }

  return {
    inspect: async () => {
      const seen: Step[] = [];
      for (const step of steps)
        seen.push(seen.some(({ state }) => state !== "done") ? later(step) : await look(step));
      return { steps: seen };
    },
    apply: async () => {
      const seen: Step[] = [];
      for (const step of steps) {
        if (seen.some(({ state }) => state !== "done")) {
          seen.push(later(step));
          continue;
        }
        const before = await look(step);
        if (before.state === "done") {
          seen.push(before);
          continue;
        }
        try {
          await step.apply();
          seen.push(await look(step));
          options.log.info("set-up step done", { step: step.id });
        } catch (error) {
          options.log.error("set-up step failed", { step: step.id, error });
          seen.push({ ...before, state: "failed", detail: describe(error) });
        }
      }
      return { steps: seen };
    },
  };
}

function later({ id, title }: StepDefinition): Step {
  return { id, title, state: "needed", detail: "comes after the step before" };
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function databaseStep({ pool, database }: SetupOptions): StepDefinition {
  return {
    id: "database",
    title: "Database",
    inspect: async () => {
      const { rows } = await pool.query<{ readonly: boolean }>(
        "select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as readonly",
      );
      if (rows[0]?.readonly === true)
        throw new Error("the database takes no changes: it is a standby or read-only");
      return { done: database };
    },
    apply: async () => {},
  };
}

function schemaStep({ pool, onSchemaReady }: SetupOptions): StepDefinition {
  return {
    id: "schema",
    title: "Database schema",
    inspect: async () => {
      const { applied, known, pending } = await schemaState(pool);
      return pending.length === 0
        ? { done: `schema ${known}` }
        : { needed: `from ${applied} to ${known}: ${pending.map(({ name }) => name).join(", ")}` };
    },
    apply: async () => {
      await migrate(pool);
      await onSchemaReady();
    },
  };
}

/** The updater as a package of its own: for whoever wants it in an installation, in no role. */
function moduleStep({ pool, updater }: SetupOptions): StepDefinition {
  return {
    id: "modules",
    title: "Shipped module files",
    inspect: async () => {
      const sha256 = hash("sha256", await updater.load(), "hex");
      const { rows } = await pool.query<{ version: string | null; sha256: string | null }>(
        `select m.version, (select encode(f.sha256, 'hex') from file_revision f where f.path = $2) as sha256
         from module m where m.id = $1`,
        [OWN_MODULE, UPDATER_PATH],
      );
      const row = rows[0];
      return row?.version === updater.version && row.sha256 === sha256
        ? { done: `${OWN_MODULE} ${updater.version}` }
        : { needed: `${OWN_MODULE} ${row?.version ?? "not loaded"} → ${updater.version}` };
    },
    apply: async () => {
      const bytes = await updater.load();
      await carryOutLoad(pool, moduleStream(updater.version, bytes), {
        own: true,
        actor: "setup",
        parse: (document) => document as LoadRequest,
      });
    },
  };
}

async function* moduleStream(
  version: string,
  bytes: Uint8Array,
): AsyncGenerator<Uint8Array, void, undefined> {
  const sha256 = hash("sha256", bytes, "hex");
  const request: LoadRequest = {
    module: { id: OWN_MODULE, version, name: "Lockstep", requires: [] },
    kind: "version",
    note: null,
    declared: {
      roles: [],
      packages: [
        { name: UPDATER_PACKAGE, description: "Lockstep's own updater", selectable: true, requires: [] },
      ],
    },
    files: [
      {
        path: UPDATER_PATH,
        size: bytes.length,
        sha256,
        mode: 0o644,
        version,
        backup: false,
        targets: [`package:${UPDATER_PACKAGE}`],
      },
    ],
    // An older hub's set-up puts its own updater back.
    allowDowngrade: true,
  };
  yield encodeMagic();
  yield encodeDocument(request);
  yield encodeContentHeader({ sha256, encoding: "identity", size: bytes.length, stored: bytes.length });
  yield bytes;
  yield encodeEnd(1);
}

function archiveStep(options: SetupOptions): StepDefinition {
  const { pool, updater } = options;
  return {
    id: "update-archive",
    title: "Update.zip",
    inspect: async () => {
      const { rows } = await pool.query<{
        version: string | null;
        size: number | null;
        sha256: string | null;
      }>("select version, size, encode(sha256, 'hex') as sha256 from file_revision where path = $1", [
        UPDATE_ARCHIVE_PATH,
      ]);
      const row = rows[0];
      const waits = await waitingFor(pool, UPDATE_ARCHIVE);
      if (waits !== null)
        return { needed: `the DBQueue is to rebuild it${waits === "" ? "" : ` (${waits})`}` };
      if (row?.sha256 === undefined || row.sha256 === null) return { needed: "it was never built" };
      return row.version === updater.version
        ? { done: `${row.size} bytes, updater ${row.version}` }
        : { needed: `it holds the updater ${row.version}, not ${updater.version}` };
    },
    apply: () => runTask(options, UPDATE_ARCHIVE),
  };
}

function revisionStep(options: SetupOptions): StepDefinition {
  const { pool } = options;
  return {
    id: "revision",
    title: "Software revision",
    inspect: async () => {
      const waits = await waitingFor(pool, SOFTWARE_REVISION);
      if (waits !== null)
        return { needed: `the DBQueue is to recalculate it${waits === "" ? "" : ` (${waits})`}` };
      const { rows } = await pool.query<{ value: number }>(
        "select value from semaphore where name = 'SoftwareRevision'",
      );
      return { done: `revision ${rows[0]?.value ?? 0}` };
    },
    apply: () => runTask(options, SOFTWARE_REVISION),
  };
}

/** Null when nothing of the task is queued; else why it was put off, or "". */
async function waitingFor(pool: pg.Pool, task: string): Promise<string | null> {
  const { rows } = await pool.query<{ reason: string | null }>(
    `select deferred_reason as reason from dbqueue_task where task = $1
     union all select null from dbqueue_current where task = $1`,
    [task],
  );
  const row = rows[0];
  return row === undefined ? null : (row.reason ?? "");
}

/** Asks the DBQueue for a task and waits until it is done. Throws when it is put off, stopped, or takes too long. */
async function runTask({ pool, clock }: SetupOptions, task: string): Promise<void> {
  await withTransaction(pool, async ({ client }) => {
    await client.query("select dbqueue_insert_single($1)", [task]);
  });
  const until = clock.monotonic() + QUEUE_MS;
  while (true) {
    const waits = await waitingFor(pool, task);
    if (waits === null) return;
    if (waits !== "") throw new Error(waits);
    const { rows } = await pool.query(
      "select from setting where name = 'DBQueue/Stopped' and value = 'true'",
    );
    if (rows.length > 0)
      throw new Error("the DBQueue's emergency stop is set; lift it, then run the set-up again");
    if (clock.monotonic() > until)
      throw new Error(`the DBQueue did not do ${task} within ${QUEUE_MS / 1000} s`);
    await clock.sleep(LOOK_AGAIN_MS);
  }
}

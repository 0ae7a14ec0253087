import { createHash, randomBytes } from "node:crypto";
import {
  type EnrolmentOrder,
  type EnrolmentRequest,
  type EnrolmentSecret,
  type EnrolmentStatus,
  LockstepError,
  type SessionGrant,
  type SessionRequest,
} from "@lockstep/protocol";
import { enrolmentHolds, epochOf, firstLink, judgeStep, type SessionStep, stepHolds } from "@lockstep/trust";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { currentRoot } from "../trust/publisher.ts";
import { listAlarms, raiseAlarm } from "./alarms.ts";

/**
 * Enrolment: a hub that knows its installations by their keys (A26).
 *
 * Somebody who may change the hub makes a secret; whoever shows it, once and in time, has its public key noted under the id
 * of its installation. From then on only a session that this key began may report for that installation. Secrets and
 * sessions have 256 random bits, so a plain digest keeps them; nothing about them can be guessed.
 */
const SESSION_MS = 60 * 60 * 1000;
const SESSIONS_MAX = 8;
export const SESSION_PREFIX = "lsi_";

export async function makeEnrolmentSecret(
  pool: pg.Pool,
  { hours, note, installation, actor }: EnrolmentOrder & { readonly actor: string },
): Promise<EnrolmentSecret> {
  const secret = `lse_${randomBytes(32).toString("base64url")}`;
  const { rows } = await pool.query<{ id: number; expiresAt: Date }>(
    `insert into enrolment (secret, note, created_by, expires_at, installation)
     values ($1, $2, $3, now() + make_interval(hours => $4), $5) returning id, expires_at as "expiresAt"`,
    [digest(secret), note, actor, hours, installation],
  );
  const [row] = rows;
  if (row === undefined) throw new LockstepError("INTERNAL", "the secret was not kept");
  return { id: row.id, secret, expiresAt: row.expiresAt.getTime() };
}

/**
 * Notes the key of an installation. Doing the same again with the same key is no misuse: its answer may have got lost.
 * Throws ENROLMENT_REFUSED; a secret that was used before, and an id that another key has, raise an alarm as well.
 */
export async function enrol(
  pool: pg.Pool,
  installation: string,
  { secret, public: publicKey, signature }: EnrolmentRequest,
  from: string,
): Promise<void> {
  const refusal = await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<{
      id: number;
      usedBy: string | null;
      expired: boolean;
      owner: string | null;
      reported: boolean;
    }>(
      `select id, used_by as "usedBy", expires_at <= now() as expired, installation as owner,
         exists (select from installation where id = $2) as reported
       from enrolment where secret = $1 for update`,
      [digest(secret), installation],
    );
    const [row] = rows;
    if (row === undefined) return { problem: "nobody made this secret, or it was taken back" };
    if (!enrolmentHolds(installation, secret, publicKey, signature))
      return { problem: "the signature is not one of the key that it names" };
    const known = await client.query<{ public: string }>(
      "select public from installation_key where installation = $1 for update",
      [installation],
    );
    const present = known.rows[0]?.public;
    if (row.usedBy === installation && present === publicKey) return null;
    if (row.usedBy !== null) {
      const detail = `secret ${row.id} of ${row.usedBy} was shown again by ${installation} from ${from}`;
      await raiseAlarm(client, "secret-reused", row.usedBy, detail);
      return { problem: "the secret was used before" };
    }
    if (row.expired) return { problem: "the time of the secret is over" };
    // Else whoever has any secret could become an installation that others know already.
    if (row.owner === null ? row.reported : row.owner !== installation)
      return { problem: "the secret is for another installation" };
    if (present !== undefined) {
      const detail = `another key wanted to enrol under this id from ${from}`;
      await raiseAlarm(client, "identity-taken", installation, detail);
      return { problem: "another key is enrolled under this id" };
    }
    const { counter, link } = firstLink(installation, publicKey);
    await client.query(
      "insert into installation_key (installation, public, epoch, counter, link) values ($1, $2, $3, $4, $5)",
      [installation, publicKey, epochOf((await currentRoot(client)).signed), counter, link],
    );
    await client.query("update enrolment set used_at = now(), used_by = $2 where id = $1", [
      row.id,
      installation,
    ]);
    return null;
  });
  // Thrown outside, so that the alarm stays.
  if (refusal === null) return;
  throw new LockstepError(
    "ENROLMENT_REFUSED",
    `the hub does not enrol this installation: ${refusal.problem}`,
    {
      expected: "a secret of lockstep fleet enrol, unused and within its time",
      found: refusal.problem,
      hint: "Nothing was changed. Make a new secret; if this one was not used by you, look at lockstep fleet alarms.",
    },
  );
}

/**
 * Begins a session. Throws INSTALLATION_NOT_ENROLLED, INSTALLATION_DIVERGED (with an alarm), SESSION_REPEATED.
 */
export async function beginSession(
  pool: pg.Pool,
  installation: string,
  { counter, prior, nonce, signature }: SessionRequest,
  from: string,
): Promise<SessionGrant> {
  const step: SessionStep = { installation, counter, prior, nonce };
  const outcome = await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<{ public: string; epoch: number; counter: number; link: string }>(
      "select public, epoch, counter, link from installation_key where installation = $1 for update",
      [installation],
    );
    const [known] = rows;
    if (known === undefined || !stepHolds(step, known.public, signature)) return notEnrolled(installation);
    const epoch = epochOf((await currentRoot(client)).signed);
    const verdict = judgeStep(known, step, epoch > known.epoch);
    if (verdict.kind === "repeated") return repeated(counter);
    if (verdict.kind === "diverged") {
      const detail = `its key was used from ${from} with counter ${counter}, where ${verdict.expected} was to come`;
      await raiseAlarm(client, "identity-copied", installation, detail);
      await client.query("delete from installation_session where installation = $1", [installation]);
      return diverged(verdict.expected, counter);
    }
    const token = `${SESSION_PREFIX}${randomBytes(32).toString("base64url")}`;
    await client.query(
      `update installation_key set counter = $2, link = $3, epoch = $4, session_at = now()
       where installation = $1`,
      [installation, verdict.chain.counter, verdict.chain.link, epoch],
    );
    await client.query(
      `delete from installation_session where expires_at <= now() or token in (
         select token from installation_session where installation = $1 order by expires_at desc offset $2)`,
      [installation, SESSIONS_MAX - 1],
    );
    const granted = await client.query<{ expiresAt: Date }>(
      `insert into installation_session (token, installation, expires_at)
       values ($1, $2, now() + make_interval(secs => $3)) returning expires_at as "expiresAt"`,
      [digest(token), installation, SESSION_MS / 1000],
    );
    return { token, expiresAt: granted.rows[0]?.expiresAt.getTime() ?? 0 };
  });
  if (outcome instanceof LockstepError) throw outcome;
  return outcome;
}

/** Whose session this is; null: nobody's, or its time is over. */
export async function sessionOwner(pool: pg.Pool, token: string): Promise<string | null> {
  const { rows } = await pool.query<{ installation: string }>(
    "select installation from installation_session where token = $1 and expires_at > now()",
    [digest(token)],
  );
  return rows[0]?.installation ?? null;
}

/** Whether a key is noted for an installation. */
export async function isEnrolled(pool: pg.Pool, installation: string): Promise<boolean> {
  const { rowCount } = await pool.query("select from installation_key where installation = $1", [
    installation,
  ]);
  return rowCount === 1;
}

/** Forgets the key of an installation, with its sessions: it may enrol again. Returns whether there was one. */
export async function forgetKey(pool: pg.Pool, installation: string): Promise<boolean> {
  const { rowCount } = await pool.query("delete from installation_key where installation = $1", [
    installation,
  ]);
  return rowCount === 1;
}

const SHOWN_MAX = 100;

export async function enrolmentStatus(pool: pg.Pool): Promise<EnrolmentStatus> {
  const { rows } = await pool.query<{ installations: number; enrolled: number; openSecrets: number }>(
    `select (select count(*) from installation)::int as installations,
       (select count(*) from installation_key)::int as enrolled,
       (select count(*) from enrolment where used_at is null and expires_at > now())::int as "openSecrets"`,
  );
  const missing = await pool.query<{ id: string; host: string; directory: string }>(
    `select id, host, directory from installation i
     where not exists (select from installation_key k where k.installation = i.id)
     order by host, directory, id limit $1`,
    [SHOWN_MAX],
  );
  const { installations = 0, enrolled = 0, openSecrets = 0 } = rows[0] ?? {};
  return { installations, enrolled, notEnrolled: missing.rows, openSecrets, alarms: await listAlarms(pool) };
}

function notEnrolled(installation: string): LockstepError {
  return new LockstepError(
    "INSTALLATION_NOT_ENROLLED",
    "the hub does not know this installation by its key",
    {
      expected: "an installation that enrolled here",
      found: installation,
      hint: "Make a secret with lockstep fleet enrol, and use it: lockstep enrol DIR.",
    },
  );
}

function repeated(counter: number): LockstepError {
  return new LockstepError("SESSION_REPEATED", "this step was taken already, and its answer got lost", {
    expected: counter + 1,
    found: counter,
    hint: "The updater goes on with the next one by itself.",
  });
}

function diverged(expected: number, found: number): LockstepError {
  return new LockstepError(
    "INSTALLATION_DIVERGED",
    "the key of this installation was used elsewhere since it was last used here",
    {
      expected: `counter ${expected}, continuing the session before it`,
      found,
      hint: "Nothing is accepted from here any more. Which of the two is genuine? lockstep fleet forget ID, then enrol that one anew.",
    },
  );
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

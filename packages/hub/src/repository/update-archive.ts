import { hash } from "node:crypto";
import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import { byPath, counted, foldPath, OWN_MODULE, type Sha256, UPDATE_ARCHIVE_PATH } from "@lockstep/core";
import {
  formatUpdateArchive,
  isUpdatePlugin,
  LockstepError,
  UPDATE_DESCRIPTION_PART,
  UPDATER_PART,
} from "@lockstep/protocol";
import type pg from "pg";
import { ZipFile } from "yazl";
import type { Procedure, TaskOutcome } from "../dbqueue/procedure.ts";
import { findContentHeaders, readStored } from "./content-read.ts";
import { storeContent } from "./content-write.ts";

/**
 * Rebuilds Update.zip (S22, S23): the bundled updater and every update plug-in of the installation data. It is itself a
 * file revision, of the module LOCKSTEP and without deploy target, so it travels like a file but is installed nowhere.
 * The same parts give the same bytes, and then nothing is written.
 *
 * Where no updater can be had (a checkout that cannot be bundled) the task fails with that reason and is tried again.
 * An archive without an updater is never built; after a few tries the queue lets the software revision go on without.
 */
export const UPDATE_ARCHIVE = "LOCKSTEP-K-UpdateArchive";

/** Where the bundled updater comes from. */
export interface UpdaterSource {
  /** Its version, as it stands in the archive. */
  readonly version: string;
  /** The program as one module. Throws UPDATER_UNAVAILABLE. */
  load(): Promise<Uint8Array>;
}

/** The archive is built in memory; plug-ins are small programs. */
const PLUGINS_BYTES_MAX = 64 * 2 ** 20;
const MODE = 0o644;

export function updateArchiveProcedure(updater: UpdaterSource): Procedure {
  return {
    task: UPDATE_ARCHIVE,
    description: "Rebuilds Update.zip from the updater and the update plug-ins",
    bulk: false,
    maxInstance: 1,
    predecessors: [],
    run: async ({ transaction }) => await rebuild(transaction.client, updater),
  };
}

/** One rebuild, in the caller's repeatable-read transaction. Throws UPDATER_UNAVAILABLE, CONTENT_TOO_LARGE. */
export async function rebuild(client: pg.PoolClient, updater: UpdaterSource): Promise<TaskOutcome> {
  const plugins = await readPlugins(client);
  const archive = await buildArchive(updater.version, await updater.load(), plugins);
  const sha256 = hash("sha256", archive, "hex");
  const { rows } = await client.query<{ sha256: string | null }>(
    "select encode(sha256, 'hex') as sha256 from file_revision where path = $1",
    [UPDATE_ARCHIVE_PATH],
  );
  if (rows[0]?.sha256 === sha256) return { kind: "done", detail: "unchanged" };
  await storeContent(client, archive);
  await client.query(
    `insert into file_revision (path, path_key, module_id, size, sha256, mode, version, backup, loaded_at)
     values ($1, $2, $3, $4, decode($5, 'hex'), $6, $7, false, now())
     on conflict (path) do update set module_id = excluded.module_id, size = excluded.size,
       sha256 = excluded.sha256, mode = excluded.mode, version = excluded.version, loaded_at = excluded.loaded_at`,
    [
      UPDATE_ARCHIVE_PATH,
      foldPath(UPDATE_ARCHIVE_PATH),
      OWN_MODULE,
      archive.length,
      sha256,
      MODE,
      updater.version,
    ],
  );
  return {
    kind: "done",
    detail: `${archive.length} bytes, ${counted(plugins.length, "plug-in")}, ${sha256}`,
  };
}

export interface ArchivePart {
  readonly path: string;
  readonly bytes: Buffer;
}

/** Builds the archive: the same parts give the same bytes, on every machine and in every time zone. */
export async function buildArchive(
  version: string,
  updater: Uint8Array,
  plugins: readonly ArchivePart[],
): Promise<Buffer> {
  const parts = [{ path: UPDATER_PART, bytes: Buffer.from(updater) }, ...plugins].sort(byPath);
  const description = formatUpdateArchive({
    version,
    parts: parts.map(({ path, bytes }) => ({
      path,
      size: bytes.length,
      sha256: hash("sha256", bytes, "hex"),
    })),
  });
  const zip = new ZipFile();
  // The DOS time stamp is local time, so it is made from local parts. Stored, not compressed: see update-archive.ts
  // of the protocol.
  const options = { mtime: new Date(1980, 0, 1), mode: 0o100644, compress: false, forceDosTimestamp: true };
  zip.addBuffer(Buffer.from(description), UPDATE_DESCRIPTION_PART, options);
  for (const { path, bytes } of parts) zip.addBuffer(bytes, path, options);
  zip.end();
  const chunks: Buffer[] = [];
  for await (const chunk of zip.outputStream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Plug-ins that some installation may get: one that is assigned to nothing must not run anywhere either. */
async function readPlugins(client: pg.PoolClient): Promise<ArchivePart[]> {
  const { rows } = await client.query<{ path: string; sha256: Sha256; size: number }>(
    `select path, encode(sha256, 'hex') as sha256, size from file_revision f
     where path like '%.update.mjs' and sha256 is not null
       and exists (select from file_has_deploy_target h where h.file_id = f.id)
     order by path`,
  );
  const plugins = rows.filter((row) => isUpdatePlugin(row.path));
  const bytes = plugins.reduce((sum, plugin) => sum + plugin.size, 0);
  if (bytes > PLUGINS_BYTES_MAX)
    throw new LockstepError("CONTENT_TOO_LARGE", "the update plug-ins are too large for Update.zip", {
      expected: PLUGINS_BYTES_MAX,
      found: bytes,
      hint: "Let plug-ins read large data from the files of the installation.",
    });
  const headers = await findContentHeaders(
    client,
    plugins.map((plugin) => plugin.sha256),
  );
  const parts: ArchivePart[] = [];
  for (const { path, sha256, size } of plugins) {
    const header = headers.get(sha256);
    if (header === undefined) throw new RangeError(`no content for ${path}`);
    const chunks: Buffer[] = [];
    for await (const chunk of readStored(client, header)) chunks.push(chunk);
    const stored = Buffer.concat(chunks);
    parts.push({ path, bytes: header.encoding === "zstd" ? await decode(stored, size) : stored });
  }
  return parts;
}

const decompress = promisify(zstdDecompress);

async function decode(stored: Buffer, size: number): Promise<Buffer> {
  return await decompress(stored, { maxOutputLength: Math.max(1, size) });
}

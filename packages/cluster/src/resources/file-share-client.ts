import { existsSync } from "node:fs";
import { connect } from "node:net";
import { BARE_ENVIRONMENT, commandProblem, runBounded } from "./bounded-command.ts";
import type { FileShareSettings } from "./file-share-settings.ts";

const SMBCLIENT = "/usr/bin/smbclient";

/** Whether somebody listens there. Null: yes; else what happened. */
export function findListenProblem(address: string, port: number, limitMs: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port });
    const end = (problem: string | null) => {
      clearTimeout(limit);
      socket.destroy();
      resolve(problem);
    };
    // Who stood still itself looks first whether it was answered meanwhile.
    const limit = setTimeout(
      () => setImmediate(() => end(`${address} port ${port} did not answer within ${limitMs} ms`)),
      limitMs,
    );
    socket.once("connect", () => end(null));
    socket.once("error", (error) => end(`${address} port ${port}: ${error.message}`));
  });
}

/**
 * Uses a share as a client does: lists it, and opens the first file. Without credentials, where guests may not, it is
 * enough that the server answers a stranger with a refusal. Null: all is well, or there is no client here to ask with.
 */
export async function useShare(
  settings: FileShareSettings,
  address: string,
  limitMs: number,
): Promise<string | null> {
  if (!existsSync(SMBCLIENT)) return null;
  const { share, port, isForGuests, credentialsFile } = settings;
  const ask = async (command: string) => {
    const who = credentialsFile === null ? ["-N"] : ["-A", credentialsFile];
    const args = [`//${address}/${share}`, "-p", String(port), ...who, "-c", command];
    // Nothing of this user's own settings for clients.
    const environment = { ...BARE_ENVIRONMENT, HOME: "/nonexistent" };
    return await runBounded(SMBCLIENT, args, { limitMs, environment });
  };
  const listed = await ask("ls");
  const said = `${listed.output}${listed.errorOutput}`;
  const isRefusal = /NT_STATUS_(ACCESS_DENIED|LOGON_FAILURE)/.test(said);
  if (credentialsFile === null && !isForGuests && isRefusal) return null;
  const problem = commandProblem(`listing //${address}/${share}`, listed, limitMs);
  if (problem !== null) return problem;
  const status = statusOf(listed.output);
  if (status !== null) return `listing //${address}/${share}: ${status}`;
  const file = firstFile(listed.output);
  if (file === null) return null;
  const opened = await ask(`open "${file}"`);
  const failed = statusOf(`${opened.output}${opened.errorOutput}`);
  if (failed !== null && !NOT_THE_SERVERS_FAULT.includes(failed))
    return `opening ${file} of //${address}/${share}: ${failed}`;
  return commandProblem(
    `opening ${file} of //${address}/${share}`,
    { ...opened, status: opened.status && 0 },
    limitMs,
  );
}

/** Somebody else has it open, has deleted it meanwhile, or does not let us. */
const NOT_THE_SERVERS_FAULT = [
  "NT_STATUS_SHARING_VIOLATION",
  "NT_STATUS_FILE_LOCK_CONFLICT",
  "NT_STATUS_OBJECT_NAME_NOT_FOUND",
  "NT_STATUS_ACCESS_DENIED",
  "NT_STATUS_DELETE_PENDING",
];

const statusOf = (output: string): string | null => /NT_STATUS_(?!OK\b)\w+/.exec(output)?.[0] ?? null;

/** Of what `ls` prints: name, attributes, size, weekday and so on, in columns. A directory has the attribute D. */
export function firstFile(listing: string): string | null {
  for (const line of listing.split("\n")) {
    const match = /^ {2}(.+?) {2,}([A-Z]*) +\d+ {2}(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) /.exec(line);
    const [, name, attributes] = match ?? [];
    // What would end the quotes of the command is left to another check.
    if (name !== undefined && attributes?.includes("D") === false && !/["\\;]/.test(name)) return name;
  }
  return null;
}

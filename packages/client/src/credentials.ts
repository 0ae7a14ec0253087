import { LockstepError } from "@lockstep/protocol/wire";

/** Where a token may come from, in the order in which it is looked for. */
export interface CredentialSources {
  /** `--token-file`, or null. */
  readonly tokenFile?: string | null;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/**
 * The token for the hub: from the file that was named, else LOCKSTEP_TOKEN, else the file LOCKSTEP_TOKEN_FILE, else
 * null (a hub that runs with --dev asks for none). Throws USAGE when a named file cannot be read or holds no token.
 */
export async function resolveToken(sources: CredentialSources): Promise<string | null> {
  if (sources.tokenFile) return await readTokenFile(sources.tokenFile);
  const direct = sources.environment.LOCKSTEP_TOKEN?.trim();
  if (direct) return checkToken(direct, "LOCKSTEP_TOKEN");
  const file = sources.environment.LOCKSTEP_TOKEN_FILE;
  return file ? await readTokenFile(file) : null;
}

/** Reads a token from the first line of a file. */
export async function readTokenFile(file: string): Promise<string> {
  const { readFileSync } = await import("node:fs");
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new LockstepError("USAGE", `the token file ${file} cannot be read`, {
      found: file,
      hint: "Name a file that this user may read; the hub writes one into its data directory.",
      cause,
    });
  }
  return checkToken(text.split("\n", 1)[0]?.trim() ?? "", file);
}

function checkToken(token: string, source: string): string {
  // What a header can carry; anything else would end up as a strange refusal from the HTTP layer.
  if (/^[\x21-\x7e]{1,4096}$/.test(token)) return token;
  throw new LockstepError("USAGE", `${source} holds no usable token`, {
    expected: "one word of printable ASCII characters",
    found: `${token.length} characters`,
    hint: "Copy the token as it stands in the file `token` of the hub's data directory.",
  });
}

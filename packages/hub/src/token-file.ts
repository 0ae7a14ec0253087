import { randomBytes } from "node:crypto";
import { link, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Logger, systemErrorCode } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";

const TOKEN_PATTERN = /^[\x21-\x7e]{16,512}$/;

/**
 * Reads the token of a data directory, making one at the first start: 256 random bits, readable for this user alone.
 * Throws CONFIG_INVALID when the file holds no token.
 */
export async function loadToken(directory: string, log: Logger): Promise<string> {
  const path = join(directory, "token");
  const present = await readFile(path, "utf8").catch((error: unknown) => {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  });
  if (present !== null) return await checkToken(path, present.trim(), log);
  const token = randomBytes(32).toString("base64url");
  // Whole or not at all: a hub that dies here must not leave an empty token behind.
  const temporary = `${path}.${process.pid}`;
  await writeFile(temporary, `${token}\n`, { mode: 0o600, flag: "w" });
  try {
    await link(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  log.info("made a token", { path });
  return token;
}

async function checkToken(path: string, token: string, log: Logger): Promise<string> {
  if (!TOKEN_PATTERN.test(token))
    throw new LockstepError("CONFIG_INVALID", `the file ${path} holds no token`, {
      expected: "one line of at least 16 printable characters",
      found: `${token.length} characters`,
      hint: "Remove the file: the hub makes a new token at its next start.",
    });
  const { mode } = await stat(path);
  if (process.platform !== "win32" && (mode & 0o077) !== 0)
    log.warn("the token can be read by others; make it readable for the hub's user alone", { path });
  return token;
}

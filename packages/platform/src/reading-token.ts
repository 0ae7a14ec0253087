/**
 * The token that can only read what installations read, made of the hub's token. Both sides can make it, and nobody can
 * make the hub's token of it: so it can be shown to a relay, which has to hand something on and need not be trusted.
 */
export function readingToken(token: string): string {
  // Not imported: programs that start often load this file and rarely need it.
  const { createHmac } = process.getBuiltinModule("node:crypto");
  return createHmac("sha256", token).update("lockstep reading token 1").digest("base64url");
}

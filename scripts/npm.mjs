// Calling npm from a script: the one that started us, on the Node that runs it.
import { accessSync, constants, existsSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * The program and first arguments that run npm. Under `npm run` the Node on the PATH may be the pinned one, which
 * `npm ci` is about to replace; the one that runs npm itself is not.
 *
 * @returns {[string, ...string[]]}
 */
export function npmCommand() {
  const { npm_execpath: script, npm_node_execpath: node } = process.env;
  return script?.endsWith(".js") && existsSync(script) && node !== undefined ? [node, script] : ["npm"];
}

/**
 * The environment for npm. It keeps what it fetches in the user's home; a user without one gets a cache in the checkout.
 *
 * @param {string} root the checkout
 * @returns {NodeJS.ProcessEnv}
 */
export function npmEnvironment(root) {
  try {
    const cache = process.env.npm_config_cache ?? join(homedir(), ".npm");
    mkdirSync(cache, { recursive: true });
    accessSync(cache, constants.W_OK);
    return process.env;
  } catch {
    return { ...process.env, npm_config_cache: join(root, ".cache", "npm") };
  }
}

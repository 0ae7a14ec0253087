import { createHash } from "node:crypto";
import { systemClock } from "@lockstep/platform";
import {
  KEY_ROLES,
  type KeyRole,
  type OrderMemory,
  readOrderMemory,
  rolesOf,
  TrustClient,
} from "@lockstep/trust";
import { showIdentity } from "./identity.ts";
import { locate } from "./installation.ts";
import { type SessionOptions, withInstallation } from "./session.ts";
import { readHistory, type SeenHistory, trustStore } from "./trust.ts";

/** Whose signatures count in an installation, and what it has seen. */
export interface ShownTrust {
  readonly root: {
    readonly version: number;
    readonly sha256: string;
    readonly roles: readonly {
      readonly role: KeyRole;
      readonly threshold: number;
      readonly keys: readonly string[];
    }[];
  };
  readonly history: SeenHistory | null;
  /** Who this installation is for its hub; null: it has no key. */
  readonly identity: ReturnType<typeof showIdentity>;
  /** The order in force; null: it follows the newest revision. */
  readonly order: { readonly counter: number; readonly revision: number | null } | null;
}

/** Reads what is pinned. Throws TRUST_ROOT_MISSING, TRUST_DAMAGED, INSTALLATION_NOT_FOUND. */
export async function showTrust(directory: string): Promise<ShownTrust> {
  const store = trustStore(locate(directory));
  const { root } = await TrustClient.open(store, systemClock);
  const roles = rolesOf(root);
  return {
    root: {
      version: root.version,
      sha256: createHash("sha256")
        .update(store.read("root") ?? "")
        .digest("hex"),
      roles: KEY_ROLES.map((role) => ({
        role,
        threshold: roles[role].threshold,
        keys: roles[role].keys.map(({ id }) => id),
      })),
    },
    history: readHistory(store),
    identity: showIdentity(locate(directory)),
    order: shownOrder(readOrderMemory(store.readRecord("orders"))),
  };
}

function shownOrder(memory: OrderMemory | null): ShownTrust["order"] {
  return memory === null ? null : { counter: memory.counter, revision: memory.revision };
}

/** Pins another root: a decision of whoever looks after the installation. Throws TRUST_REFUSED, INSTALLATION_LOCKED. */
export async function pinRoot(
  directory: string,
  root: Uint8Array,
  options: SessionOptions,
): Promise<ShownTrust> {
  const paths = locate(directory);
  await withInstallation(paths, options, async () => {
    const store = trustStore(paths);
    await TrustClient.pin(store, root);
    // What was signed under the former root says nothing under this one, and must not stand in its way.
    await store.forget();
  });
  return await showTrust(directory);
}

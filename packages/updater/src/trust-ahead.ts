import { type HubClient, openDocument } from "@lockstep/client";
import { systemClock } from "@lockstep/platform";
import {
  changesPath,
  type KeptMetadata,
  type MetadataChanges,
  type Mirror,
  MirrorSource,
  type ReleaseEntry,
  readChanges,
} from "@lockstep/trust";

/**
 * Asking for all new metadata at once, before it is asked for one by one.
 *
 * What comes is held as an answer that came early: each document is served from here once, under its own name and to the
 * same examination; whatever is not here, or is asked for again, comes from the hub. So a hub or a relay that knows
 * nothing of it costs one request, and a lie in it no more than a lie in the documents themselves.
 */
export interface AheadMetadata {
  readonly mirror: Mirror;
  /** Entries of the log of releases between two sizes of the log, or null where they are not here. */
  entries(after: number, to: number): readonly ReleaseEntry[] | null;
}

const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
const NO_LOG = 2 ** 31 - 1;
const NONE: MetadataChanges = { documents: new Map(), entries: [] };

/** Never throws for what the hub answers; an interruption shows with the next request. */
export async function fetchAhead(
  client: HubClient,
  store: KeptMetadata,
  seen: { readonly epoch: number; readonly size: number } | null,
  signal: AbortSignal | undefined,
): Promise<AheadMetadata> {
  const hub: Mirror = {
    name: client.url,
    open: (document, from, stop) => openDocument(client.connection, `/v1/trust/${document}`, from, stop),
  };
  const root = versionOf(store.read("root"));
  const changes = root === 0 ? NONE : await ask(hub, store, root, seen, signal);
  const waiting = new Map(changes.documents);
  return {
    mirror: {
      name: hub.name,
      async open(document, from, stop) {
        const bytes = waiting.get(document);
        if (bytes === undefined) return await hub.open(document, from, stop);
        waiting.delete(document);
        return bytes === null ? null : { offset: 0, chunks: once(bytes) };
      },
    },
    entries: (after, to) => {
      const found = changes.entries.filter(({ index }) => index > after && index <= to);
      return found.length === to - after ? found : null;
    },
  };
}

async function ask(
  hub: Mirror,
  store: KeptMetadata,
  root: number,
  seen: { readonly epoch: number; readonly size: number } | null,
  signal: AbortSignal | undefined,
): Promise<MetadataChanges> {
  const path = changesPath({
    root,
    snapshot: versionOf(store.read("snapshot")),
    targets: versionOf(store.read("targets")),
    epoch: seen?.epoch ?? 0,
    // Whoever has seen none needs none.
    log: seen?.size ?? NO_LOG,
  });
  let changes = NONE;
  try {
    await new MirrorSource([hub], systemClock, undefined, signal).fetch(
      path,
      ANSWER_BYTES_MAX,
      async (bytes) => {
        changes = readChanges(bytes);
      },
    );
  } catch {
    // Whatever is wrong shows again where it counts, when the documents are asked for by name.
  }
  return changes;
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}

/** The number of a kept document; 0 where there is none. It only decides what is asked for. */
function versionOf(bytes: Uint8Array | null): number {
  if (bytes === null) return 0;
  try {
    const { signed } = JSON.parse(Buffer.from(bytes).toString("utf8")) as { signed?: { version?: unknown } };
    return typeof signed?.version === "number" && Number.isSafeInteger(signed.version) ? signed.version : 0;
  } catch {
    return 0;
  }
}

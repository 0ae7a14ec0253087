import type { Prng } from "./prng.ts";
import { type CrashModel, type Entry, type Inode, Journal, type LoggedChange } from "./sim-journal.ts";

/** What a power cut leaves of a simulated disk: the model's rules stand at the head of sim-disk.ts. */
export interface PowerCutOptions {
  readonly model: CrashModel;
  readonly tornRenames: boolean;
}

const NO_BYTES = new Uint8Array(0);

/** Draws one of the states that may be found after the power failed now. */
export function afterPowerCut(journal: Journal, options: PowerCutOptions, prng: Prng): Journal {
  const entries = new Map<number, Map<string, Entry>>();
  for (const inode of journal.inodes)
    if (inode.kind === "directory") entries.set(inode.ino, new Map(journal.baseOf(inode.ino)));
  const kept = options.model === "any-subset" ? drawSubset(journal.log, prng) : drawPrefix(journal.log, prng);
  const tearing = options.tornRenames && options.model === "any-subset";
  for (const change of kept) replay(change, entries, tearing && prng.chance(0.3));

  const found = new Map<number, Inode>();
  const visit = (inode: Inode) => {
    if (found.has(inode.ino)) return;
    const survivor = drawContent(inode, prng);
    found.set(inode.ino, survivor);
    for (const [key, entry] of entries.get(inode.ino) ?? []) {
      survivor.entries.set(key, entry);
      visit(journal.inode(entry.ino));
    }
  };
  visit(journal.root);
  return Journal.of(found.values(), journal);
}

/**
 * Which changes survive. Single bugs hide in single losses, so besides coins of every weight: all but one, only one,
 * all, none.
 */
function drawSubset(log: readonly LoggedChange[], prng: Prng): LoggedChange[] {
  const doubtful = log.filter(({ unsynced }) => unsynced.size > 0);
  const one = prng.pick(doubtful);
  const weight = prng.next();
  const keeps: (change: LoggedChange) => boolean = prng.pick([
    () => prng.chance(0.5),
    () => prng.chance(weight),
    (change: LoggedChange) => change !== one,
    (change: LoggedChange) => change === one,
    () => true,
    () => false,
  ]);
  return log.filter((change) => change.unsynced.size === 0 || keeps(change));
}

function drawPrefix(log: readonly LoggedChange[], prng: Prng): readonly LoggedChange[] {
  return log.slice(0, prng.below(log.length + 1));
}

function replay(change: LoggedChange, entries: Map<number, Map<string, Entry>>, torn: boolean): void {
  for (const { directory, key, entry } of change.changes) {
    const names = entries.get(directory);
    // A directory that only ever was in memory keeps its entries to itself.
    if (names === undefined) continue;
    if (entry !== null) names.set(key, entry);
    else if (!(torn && change.isFileRename && change.unsynced.size > 0)) names.delete(key);
  }
}

function drawContent(inode: Inode, prng: Prng): Inode {
  const survivor: Inode = { ...inode, entries: new Map(), worthless: false };
  if (inode.kind !== "file") return survivor;
  const { durable } = inode;
  const synced = durable?.bytes === inode.bytes && durable.mode === inode.mode;
  if (synced) return survivor;
  const bytes = drawBytes(inode, prng);
  const mode = prng.chance(0.5) ? inode.mode : (durable?.mode ?? 0o600);
  return { ...survivor, bytes, mode };
}

function drawBytes(inode: Inode, prng: Prng): Uint8Array {
  const { bytes, durable } = inode;
  if (durable?.bytes === bytes) return bytes;
  const cut = prng.below(bytes.length + 1);
  return prng.pick([
    () => bytes,
    () => durable?.bytes ?? NO_BYTES,
    () => NO_BYTES,
    () => bytes.slice(0, cut),
    () => Uint8Array.from(bytes, (byte, at) => (at < cut ? byte : 0)),
  ])();
}

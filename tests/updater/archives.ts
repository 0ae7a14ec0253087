import { createHash } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import { formatUpdateArchive } from "@lockstep/protocol";
import { bundleUpdater } from "../../scripts/bundle-updater.mjs";

/** Update archives as a hub builds them, from any parts; with or without faults. */
export interface ArchiveParts {
  readonly version?: string;
  readonly updater?: string | Uint8Array;
  readonly plugins?: Readonly<Record<string, string>>;
  /** Compresses the parts, so that little can stand for much. */
  readonly deflated?: boolean;
  /** Changes the description after it was computed. */
  readonly describe?: (text: string) => string;
  /** Parts that the description does not know. */
  readonly smuggled?: Readonly<Record<string, string>>;
}

let bundled: Promise<Uint8Array> | null = null;

/** The updater of this checkout as one file, bundled once for all tests. */
export function ownUpdater(): Promise<Uint8Array> {
  bundled ??= bundleUpdater();
  return bundled;
}

export async function makeArchive(parts: ArchiveParts): Promise<Buffer> {
  const files: Record<string, Uint8Array> = { "updater.mjs": toBytes(parts.updater ?? (await ownUpdater())) };
  for (const [path, text] of Object.entries(parts.plugins ?? {})) files[path] = toBytes(text);
  const described = Object.entries(files)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, bytes]) => ({
      path,
      size: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    }));
  const text = formatUpdateArchive({ version: parts.version ?? "0.1.0", parts: described });
  const smuggled = Object.entries(parts.smuggled ?? {}).map(
    ([path, content]) => [path, toBytes(content)] as const,
  );
  const entries = [
    ["update.json", toBytes(parts.describe?.(text) ?? text)] as const,
    ...described.map(({ path }) => [path, files[path] ?? new Uint8Array()] as const),
    ...smuggled,
  ];
  return makeZip(entries, parts.deflated === true);
}

const toBytes = (value: string | Uint8Array) => (typeof value === "string" ? Buffer.from(value) : value);

const STORED = 0;
const DEFLATED = 8;

/** A zip (APPNOTE 4.3) with just what is tested; any name can stand in it. */
function makeZip(entries: readonly (readonly [string, Uint8Array])[], deflated: boolean): Buffer {
  const local: Buffer[] = [];
  const central: Buffer[] = [];
  let offset = 0;
  for (const [path, bytes] of entries) {
    const name = Buffer.from(path);
    const data = deflated ? deflateRawSync(bytes) : Buffer.from(bytes);
    const facts = Buffer.alloc(26);
    facts.writeUInt16LE(20, 0);
    facts.writeUInt16LE(deflated ? DEFLATED : STORED, 4);
    facts.writeUInt32LE(0x00210000, 6);
    facts.writeUInt32LE(crc32(bytes), 10);
    facts.writeUInt32LE(data.length, 14);
    facts.writeUInt32LE(bytes.length, 18);
    facts.writeUInt16LE(name.length, 22);
    const header = Buffer.concat([Buffer.from("PK\x03\x04"), facts, name]);
    const where = Buffer.alloc(14);
    where.writeUInt32LE(0o100644 * 65536, 6);
    where.writeUInt32LE(offset, 10);
    central.push(Buffer.concat([Buffer.from("PK\x01\x02"), Buffer.from([20, 3]), facts, where, name]));
    local.push(header, data);
    offset += header.length + data.length;
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", 0, "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...local, directory, end]);
}

function crc32(bytes: Uint8Array): number {
  return process.getBuiltinModule("node:zlib").crc32(bytes);
}

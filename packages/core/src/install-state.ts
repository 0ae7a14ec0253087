import { type EditsPolicy, parseEditsPolicy } from "./edits.ts";
import { FILE_MODE_MAX, type FileEntry, isSha256, type Sha256 } from "./file.ts";
import { formatRow, readRows } from "./file-rows.ts";
import { readTransferSettings, type TransferSettings } from "./transfer-limits.ts";

/**
 * InstallState.config (S24): what is installed in a directory, and where it comes from.
 *
 * The file is JSON with one installed file a line, so that it is read in one go, its change is a change of lines, and a
 * person can search it. The rows say what *we* last put there: a file whose content differs from its row was edited, a
 * file without a row is not ours. Only what stands here is ever removed.
 */
export interface InstallState {
  /** Names this installation towards the hub: a UUID drawn at installation. */
  readonly id: string;
  readonly hub: InstallationHub;
  /** All machine roles, parents included, ordered. */
  readonly roles: readonly string[];
  /** Those that somebody chose; the others came with them. */
  readonly rolesChosen: readonly string[];
  /** All installation packages, required ones included, ordered. */
  readonly packages: readonly string[];
  readonly packagesChosen: readonly string[];
  readonly settings: InstallationSettings;
  /** Digest of the manifest of each deploy target that the files come from, by `formatTarget`. */
  readonly manifests: Readonly<Record<string, Sha256>>;
  /** What we installed, ordered by path. */
  readonly files: readonly FileEntry[];
}

export interface InstallationHub {
  readonly url: string;
  /** File of certificates to trust, or null for the machine's own. */
  readonly caFile: string | null;
  /** File that holds the token, or null. The token itself never stands here. */
  readonly tokenFile: string | null;
  /** Address of a relay that is asked before the hub; null or absent: none. */
  readonly relay?: string | null;
}

export interface InstallationSettings {
  /** False stops automatic runs (launch, agent) in this installation; a manual update goes on (domain 1.7). */
  readonly autoUpdate: boolean;
  readonly edits: EditsPolicy;
  /** Limits of its own for what it fetches; absent: those of the hub. */
  readonly transfer?: TransferSettings;
}

export const INSTALL_STATE_FORMAT = "lockstep-install-state/1";
export const DEFAULT_SETTINGS: InstallationSettings = { autoUpdate: true, edits: "replace" };

/** Writes the file. The rows must be in order already. Equal states give equal text. */
export function formatInstallState(state: InstallState): string {
  const head = {
    format: INSTALL_STATE_FORMAT,
    id: state.id,
    hub: {
      url: state.hub.url,
      caFile: state.hub.caFile,
      tokenFile: state.hub.tokenFile,
      // Only where there is one: an older updater need not know of it.
      ...(state.hub.relay ? { relay: state.hub.relay } : {}),
    },
    roles: state.roles,
    rolesChosen: state.rolesChosen,
    packages: state.packages,
    packagesChosen: state.packagesChosen,
    settings: {
      autoUpdate: state.settings.autoUpdate,
      edits: state.settings.edits,
      // Only where there are some: an older updater need not know of them.
      ...(state.settings.transfer === undefined ? {} : { transfer: state.settings.transfer }),
    },
    manifests: Object.fromEntries(
      Object.entries(state.manifests).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
    ),
  };
  const lines = Object.entries(head).map(
    ([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)},`,
  );
  return `{\n${lines.join("\n")}${FILES_LINE}${state.files.map(formatRow).join(",\n")}\n]}\n`;
}

/** What separates the head, which is small, from the files. */
export const FILES_LINE = '\n"files":[\n';

export type ParsedInstallState =
  | { readonly kind: "state"; readonly state: InstallState }
  | { readonly kind: "fault"; readonly where: string; readonly problem: string };

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads the file. A damaged one gives the first fault and its place, never half a state. */
export function parseInstallState(text: string): ParsedInstallState {
  const head = text.indexOf(FILES_LINE);
  const read = head === -1 ? null : readRows(text, head + FILES_LINE.length, ",");
  // The rows as we write them are taken from the text; anything else goes the slow way, which finds the fault.
  if (read === null || text.slice(read.end) !== "]}\n") return parseSlowly(text, null);
  return parseSlowly(`${text.slice(0, head)}${FILES_LINE}]}`, read.entries);
}

function parseSlowly(text: string, rows: FileEntry[] | null): ParsedInstallState {
  const fault = (where: string, problem: string): ParsedInstallState => ({ kind: "fault", where, problem });
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch (error) {
    return fault("file", error instanceof Error ? error.message : "it is not JSON");
  }
  if (!isObject(root)) return fault("file", "it is no JSON object");
  if (root.format !== INSTALL_STATE_FORMAT)
    return fault("format", `expected ${INSTALL_STATE_FORMAT}, found ${String(root.format)}`);
  const { id, hub, roles, rolesChosen, packages, packagesChosen, settings, manifests } = root;
  if (typeof id !== "string" || !/^[0-9a-f-]{36}$/.test(id)) return fault("id", "it is no UUID");
  if (!isObject(hub) || typeof hub.url !== "string") return fault("hub", "the address is missing");
  const { caFile, tokenFile, relay = null } = hub;
  if (caFile !== null && typeof caFile !== "string")
    return fault("hub.caFile", "it is neither text nor null");
  if (tokenFile !== null && typeof tokenFile !== "string")
    return fault("hub.tokenFile", "it is neither text nor null");
  if (relay !== null && typeof relay !== "string") return fault("hub.relay", "it is neither text nor null");
  if (!isTexts(roles)) return fault("roles", "it is no list of names");
  if (!isTexts(rolesChosen)) return fault("rolesChosen", "it is no list of names");
  if (!isTexts(packages)) return fault("packages", "it is no list of names");
  if (!isTexts(packagesChosen)) return fault("packagesChosen", "it is no list of names");
  if (!isObject(settings)) return fault("settings", "it is no object");
  const edits = parseEditsPolicy(settings.edits);
  if (edits === null) return fault("settings.edits", `${String(settings.edits)} is no policy`);
  if (typeof settings.autoUpdate !== "boolean")
    return fault("settings.autoUpdate", "it is not true or false");
  if (!isObject(manifests) || !Object.values(manifests).every(isSha256))
    return fault("manifests", "it is no list of digests");
  const files = rows ?? checkRows(root.files);
  if (typeof files === "string") return fault("files", files);
  return {
    kind: "state",
    state: {
      id,
      hub: { url: hub.url, caFile, tokenFile, ...(relay === null ? {} : { relay }) },
      roles,
      rolesChosen,
      packages,
      packagesChosen,
      settings: {
        autoUpdate: settings.autoUpdate,
        edits,
        ...(settings.transfer === undefined ? {} : { transfer: readTransferSettings(settings.transfer) }),
      },
      manifests: manifests as Record<string, Sha256>,
      files,
    },
  };
}

/** The rows as entries, or what is wrong with the first bad one. */
function checkRows(rows: unknown): FileEntry[] | string {
  if (!Array.isArray(rows)) return "the list is missing";
  const files: FileEntry[] = [];
  let previous = "";
  for (const row of rows) {
    if (!Array.isArray(row) || row.length !== 5) return `row ${files.length + 1} is not a file`;
    const [path, size, sha256, mode, backup] = row as unknown[];
    if (typeof path !== "string" || path <= previous)
      return `row ${files.length + 1} is out of order: ${String(path)}`;
    if (!Number.isSafeInteger(size) || (size as number) < 0) return `size of ${path}`;
    if (!isSha256(sha256)) return `digest of ${path}`;
    if (!Number.isInteger(mode) || (mode as number) < 0 || (mode as number) > FILE_MODE_MAX)
      return `mode of ${path}`;
    if (backup !== 0 && backup !== 1) return `backup mark of ${path}`;
    files.push({ path, size: size as number, sha256, mode: mode as number, backup: backup === 1 });
    previous = path;
  }
  return files;
}

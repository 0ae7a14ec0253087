/**
 * Deploy targets: what a file belongs to (S17, `QBMFileHasDeployTarget`).
 *
 * A machine role is a node of a tree and is named by its full path, `Server/JobServer/LDAP`; choosing one chooses
 * its parents as well. An installation package is named `MODULE/Package`.
 */
export type DeployTarget =
  | { readonly kind: "role"; readonly name: string }
  | { readonly kind: "package"; readonly name: string };

export type DeployTargetKind = DeployTarget["kind"];

const SEGMENT = /^[A-Za-z0-9](?:[A-Za-z0-9 _.+-]{0,62}[A-Za-z0-9_+-])?$/;
const ROLE_DEPTH_MAX = 16;

/**
 * Reads the name of a machine role. Backslashes, which the original wrote between the parts, count as slashes.
 * Returns the normalised full path, or null when it is no role name.
 */
export function parseRoleName(text: string): string | null {
  const parts = text.trim().replaceAll("\\", "/").split("/");
  if (parts.length > ROLE_DEPTH_MAX) return null;
  return parts.every((part) => SEGMENT.test(part)) ? parts.join("/") : null;
}

/** Reads `MODULE/Package`. Returns the name, or null when it is none. */
export function parsePackageName(text: string): string | null {
  const parts = text.trim().replaceAll("\\", "/").split("/");
  return parts.length === 2 && parts.every((part) => SEGMENT.test(part)) ? parts.join("/") : null;
}

/** Whether a text can be the id of a module. */
export function isModuleId(text: string): boolean {
  return SEGMENT.test(text);
}

/** The role and all its parents, root first: `Server/JobServer` gives `Server`, `Server/JobServer`. */
export function roleWithParents(role: string): string[] {
  const parts = role.split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** One text for one target, as used in keys and in the wire formats: `role:Server/JobServer`. */
export function formatTarget(target: DeployTarget): string {
  return `${target.kind}:${target.name}`;
}

/** The reverse of `formatTarget`. Returns null when the text names no target. */
export function parseTarget(text: string): DeployTarget | null {
  const colon = text.indexOf(":");
  const kind = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (kind === "role") {
    const name = parseRoleName(rest);
    return name === null ? null : { kind, name };
  }
  if (kind === "package") {
    const name = parsePackageName(rest);
    return name === null ? null : { kind, name };
  }
  return null;
}

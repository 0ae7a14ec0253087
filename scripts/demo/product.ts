import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import type { PublishedPackage } from "./published-package.ts";

/**
 * The product of the demonstration: any published package, cut into machine roles by what its files are for. A server
 * gets what runs; a workstation gets what a developer looks at: types, source maps, documentation.
 *
 * The cut is made twice, on purpose: as a module description for Lockstep, and as a plain function with which the
 * demonstration checks what Lockstep did.
 */
export const SERVER_ROLE = "Server/JobServer";
export const WORKSTATION_ROLE = "Client/Workstation";
export type Machine = "server" | "workstation";

const DOCUMENTATION_FOLDER = "documentation";

/** The id of the module: letters and digits of the package's name. */
export function moduleId(name: string): string {
  return (
    name
      .replace(/^.*\//, "")
      .replaceAll(/[^A-Za-z0-9]/g, "")
      .toUpperCase()
      .slice(0, 12) || "PRODUCT"
  );
}

/** The module description of one version, as a vendor would ship it beside the files. */
export function describeModule(product: PublishedPackage): string {
  const id = moduleId(product.name);
  return `format = 1
id = "${id}"
version = "${product.version}"
name = "${product.name}"

[[role]]
path = "Server"
description = "Every server"

[[role]]
path = "${SERVER_ROLE}"
description = "Runs the product"

[[role]]
path = "Client"
description = "Every workstation"

[[role]]
path = "${WORKSTATION_ROLE}"
description = "Types, source maps and documentation for developers"
packages = [{ id = "${id}/Documentation", subdirectory = "${DOCUMENTATION_FOLDER}" }]

[[package]]
id = "${id}/Documentation"
description = "Everything to read"

# The last rule that matches a file counts.
[[files]]
match = "**"
roles = ["${SERVER_ROLE}"]

[[files]]
match = "**/*.{map,d.ts}"
roles = ["${WORKSTATION_ROLE}"]

[[files]]
match = "**/*.md"
packages = ["${id}/Documentation"]

[[files]]
match = "package.json"
roles = ["Server", "Client"]
`;
}

/** Where a file of the package lands on a machine, or null when that machine does not get it. */
function placeOn(machine: Machine, path: string): string | null {
  if (path === "package.json") return path;
  if (path.endsWith(".md")) return machine === "workstation" ? `${DOCUMENTATION_FOLDER}/${path}` : null;
  const forDevelopers = path.endsWith(".map") || path.endsWith(".d.ts");
  return forDevelopers === (machine === "workstation") ? path : null;
}

/** What a machine must hold: path in the installation, and the file of the package that it must equal. */
export async function expectedFiles(
  machine: Machine,
  product: PublishedPackage,
): Promise<Map<string, string>> {
  const expected = new Map<string, string>();
  for (const path of await filesBelow(product.directory)) {
    const place = placeOn(machine, path);
    if (place !== null) expected.set(place, join(product.directory, path));
  }
  return expected;
}

/** Every file below a directory, relative, with `/`. */
export async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .sort();
}

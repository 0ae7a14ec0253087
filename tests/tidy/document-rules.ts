import { posix } from "node:path";
import type { Tree } from "./tree.ts";

/** What benchmarks write are tables, put together to one document elsewhere. */
const isDocument = (path: string) => path.endsWith(".md") && !path.startsWith("bench/results/");

/** A Markdown text without its code blocks, line numbers kept. */
function prose(text: string): string {
  return text.replaceAll(/^(```|~~~)[\s\S]*?^\1.*$/gm, (block) => block.replaceAll(/[^\n]/g, ""));
}

/** Documents without exactly one title. */
export function findTitleFaults(tree: Tree): string[] {
  return tree.paths
    .filter(isDocument)
    .map((path) => ({ path, titles: prose(tree.read(path)).match(/^# \S/gm)?.length ?? 0 }))
    .filter(({ titles }) => titles !== 1)
    .map(({ path, titles }) => `${path}: ${titles} titles (lines that begin with "# "), expected one`);
}

/** Links to files of the project that are not there. */
export function findDeadLinks(tree: Tree): string[] {
  const known = new Set(tree.paths.flatMap((path) => [path, ...parents(path)]));
  return tree.paths.filter(isDocument).flatMap((path) =>
    [...prose(tree.read(path)).matchAll(/\]\(([^)\s]+)\)|\b(?:src|href)="([^"]+)"/g)]
      .map((match) => match[1] ?? match[2] ?? "")
      .filter((target) => !/^([a-z]+:|#)/.test(target))
      .filter(
        (target) =>
          !known.has(posix.join(posix.dirname(path), target.replace(/[#?].*$/, "")).replace(/\/$/, "")),
      )
      .map((target) => `${path}: links to ${target}, which is not there`),
  );
}

function parents(path: string): string[] {
  const parent = posix.dirname(path);
  return parent === "." ? ["."] : [parent, ...parents(parent)];
}

/** Documents below docs/ that their index does not lead to. Decisions have an index of their own. */
export function findUnlisted(tree: Tree): string[] {
  const listed = (index: string) =>
    [...tree.read(index).matchAll(/\]\(([^)#\s]+)/g)].map((match) =>
      posix.join(posix.dirname(index), match[1] ?? ""),
    );
  const reached = new Set([...listed("docs/README.md"), ...listed("docs/adr/README.md")]);
  return tree.paths
    .filter((path) => isDocument(path) && path.startsWith("docs/") && path !== "docs/README.md")
    .filter((path) => !reached.has(path))
    .map((path) => `${path}: no index of the documents leads to it`);
}

export interface CodeFaults {
  readonly undocumented: string[];
  readonly unknown: string[];
}

/** Holds the error codes of the program against the `## CODE` sections of their document. */
export function compareErrorCodes(codes: readonly string[], document: string): CodeFaults {
  const sections = [...prose(document).matchAll(/^## ([A-Z][A-Z0-9_]+)\s*$/gm)].map(
    (match) => match[1] ?? "",
  );
  const empty = prose(document)
    .split(/^## /m)
    .slice(1)
    .filter((section) => section.split("\n").slice(1).join("").trim().length < 40)
    .map((section) => section.split("\n")[0] ?? "");
  return {
    undocumented: codes.filter((code) => !sections.includes(code) || empty.includes(code)),
    unknown: sections.filter(
      (section, index) => !codes.includes(section) || sections.indexOf(section) !== index,
    ),
  };
}

/** Hosts of package registries: an address of one binds every build to it, and may tell where we build. */
const REGISTRY_HOST =
  /\b(?:registry\.(?!ts\b)[a-z]|(?:www\.)?npmjs\.(?:com|org)|yarnpkg\.com|pypi\.org|crates\.io|proxy\.golang\.org)/i;
const TEXT_BYTES_MAX = 4 * 1024 * 1024;

/** Files that name the host of a package registry. */
export function findRegistryHosts(tree: Tree): string[] {
  return tree.paths
    .filter((path) => !/\.(png|jpg|gif|zip|tgz|woff2?)$/.test(path))
    .flatMap((path) => {
      const text = tree.read(path);
      if (text.length > TEXT_BYTES_MAX) return [];
      const line = text.split("\n").findIndex((each) => REGISTRY_HOST.test(each));
      return line < 0 ? [] : [`${path}:${line + 1}: names the host of a package registry`];
    });
}

interface LockEntry {
  readonly resolved?: string;
  readonly link?: boolean;
  readonly integrity?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** What would break `npm ci` on another machine: addresses, and optional platform packages that npm left out. */
export function findLockFaults(lock: { readonly packages: Readonly<Record<string, LockEntry>> }): string[] {
  const names = new Set(Object.keys(lock.packages).map((path) => path.replace(/^.*node_modules\//, "")));
  return Object.entries(lock.packages).flatMap(([path, entry]) => {
    const isRemote = path.includes("node_modules/") && entry.link !== true;
    return [
      ...(isRemote && entry.resolved !== undefined ? [`${path}: has an address`] : []),
      ...(isRemote && entry.integrity === undefined ? [`${path}: has no integrity`] : []),
      ...Object.keys(entry.optionalDependencies ?? {})
        .filter((name) => !names.has(name))
        .map((name) => `${path || "package.json"}: optional ${name} is not in the lock file`),
    ];
  });
}

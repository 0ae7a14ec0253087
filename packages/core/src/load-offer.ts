import type { LayoutChange } from "./load-declaration.ts";
import type { ModuleRequirement } from "./module.ts";
import type { Layout } from "./revision-layout.ts";

/** The words of a load: what is offered, what the repository holds, and the plan between them. */
export type LoadKind = "version" | "service-pack" | "hotfix" | "custom";

/** How a file of a load stands to the repository (behaviour 44). Equal means equal size and digest. */
export type LoadStatus = "unknown" | "never-loaded" | "changed" | "equal";

export interface OfferedFile {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  readonly mode: number;
  /** Absent: what the repository has; null for a new file. */
  readonly version?: string | null;
  /** Absent: what the repository has; false for a new file. */
  readonly backup?: boolean;
  /** Null keeps the deploy targets that the repository has; none for a new file. */
  readonly targets: readonly string[] | null;
}

export interface DeclaredTargets {
  readonly roles: readonly {
    readonly path: string;
    readonly description: string;
    readonly selectable: boolean;
    readonly packages: readonly { readonly package: string; readonly subdirectory: string }[];
  }[];
  readonly packages: readonly {
    readonly name: string;
    readonly description: string;
    readonly selectable: boolean;
    readonly requires: readonly string[];
  }[];
}

/** What somebody wants to load. */
export interface LoadOffer {
  readonly module: {
    readonly id: string;
    readonly version: string;
    readonly name: string | null;
    readonly requires: readonly ModuleRequirement[];
  };
  readonly kind: LoadKind;
  /** Null: no description came along, so what is declared stays. */
  readonly declared: DeclaredTargets | null;
  readonly files: readonly OfferedFile[];
  readonly allowDowngrade: boolean;
}

export interface StoredFile {
  readonly path: string;
  readonly module: string;
  /** Null: the name is known, but nothing was ever loaded under it. */
  readonly size: number | null;
  readonly sha256: string | null;
  readonly mode: number;
  readonly version: string | null;
  readonly backup: boolean;
  readonly targets: readonly string[];
}

export interface StoredModule {
  readonly id: string;
  /** Null: known by name only. */
  readonly version: string | null;
  readonly name: string | null;
  readonly requires: readonly ModuleRequirement[];
}

/** The repository as the load meets it. */
export interface RepositoryState {
  readonly modules: ReadonlyMap<string, StoredModule>;
  readonly files: ReadonlyMap<string, StoredFile>;
  readonly layout: Layout;
}

export type LoadRefusalKind = "load" | "path" | "requirement";

export interface LoadRefusal {
  readonly kind: LoadRefusalKind;
  /** The path, module or declaration that it is about. */
  readonly where: string;
  readonly problem: string;
}

/** A file revision to insert or to change. */
export interface FilePut {
  /** With everything that the offer leaves to the repository filled in. */
  readonly file: Required<OfferedFile>;
  readonly isNew: boolean;
  /** Whether its content differs from what the repository has. */
  readonly content: boolean;
  /** The deploy targets that it has afterwards, or null where they stay. */
  readonly targets: readonly string[] | null;
}

export interface LoadPlan {
  /** The module that the files go to: CCC for custom files, whatever the offer says. */
  readonly module: string;
  /** One for each file of the offer, in its order. */
  readonly statuses: readonly LoadStatus[];
  readonly puts: readonly FilePut[];
  readonly removals: readonly string[];
  readonly layout: LayoutChange;
  /** The row of the module afterwards, or null where it stays. */
  readonly moduleChange: StoredModule | null;
  /** Files of equal content whose targets, mode, version text or backup mark change. */
  readonly attributeChanges: number;
  /** Files that would belong to no deploy target. */
  readonly undistributed: number;
  readonly counts: {
    readonly added: number;
    readonly changed: number;
    readonly removed: number;
    readonly equal: number;
  };
  readonly refusals: readonly LoadRefusal[];
  readonly notices: readonly string[];
  readonly currentVersion: string | null;
}

/** Where customers' own files live; survives every load of another module. */
export const CUSTOM_MODULE = "CCC";
/** Lockstep's own files, the update archive among them. Loads from outside cannot touch it. */
export const OWN_MODULE = "LOCKSTEP";
/** The path under which the update archive is kept among the file revisions (S22). */
export const UPDATE_ARCHIVE_PATH = "Update.zip";

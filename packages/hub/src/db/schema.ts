import type { ColumnType, Generated, GeneratedAlways } from "kysely";

/**
 * The tables of sql/*.sql as Kysely sees them. bigint columns are numbers (connect.ts parses them, and refuses what a
 * number cannot hold), bytea is a Buffer, timestamptz a Date, jsonb is parsed on reading and JSON text on writing.
 */
type Json<T> = ColumnType<T, string | undefined, string>;
type RequiredJson<T> = ColumnType<T, string, string>;
type Now = ColumnType<Date, Date | undefined, Date>;

export interface Database {
  schema_migration: SchemaMigrationTable;
  module: ModuleTable;
  release_load: ReleaseLoadTable;
  content: ContentTable;
  content_part: ContentPartTable;
  file_revision: FileRevisionTable;
  deploy_target: DeployTargetTable;
  file_has_deploy_target: { file_id: number; target_id: number };
  role_has_package: RoleHasPackageTable;
  package_requires: { package_id: number; requires_id: number };
  semaphore: { name: string; value: number; updated_at: Now };
  software_revision: SoftwareRevisionTable;
  revision_file: RevisionFileTable;
  revision_manifest: RevisionManifestTable;
  setting: { name: string; value: RequiredJson<string | number | boolean> };
  installation: InstallationTable;
  dbqueue_definition: DbQueueDefinitionTable;
  dbqueue_predecessor: { task: string; predecessor: string };
  dbqueue_task: DbQueueTaskTable;
  dbqueue_current: DbQueueCurrentTable;
  dbqueue_hub: { hub: string; started_at: Now; heartbeat_at: Now };
  dbqueue_journal: DbQueueJournalTable;
}

export interface SchemaMigrationTable {
  number: number;
  name: string;
  sha256: string;
  applied_at: Now;
}

export interface ModuleTable {
  id: string;
  name: string | null;
  /** Null until the module was loaded for the first time. */
  version: string | null;
  requires: Json<readonly { module: string; min: string | null; max: string | null }[]>;
  loaded_at: Date | null;
}

export interface ReleaseLoadTable {
  id: Generated<number>;
  module_id: string;
  version: string;
  kind: "version" | "service-pack" | "hotfix" | "custom" | "revert";
  note: string | null;
  loaded_at: Now;
  actor: string | null;
  counts: Json<Record<string, number>>;
  /** Filled by the recalculation that includes the load. */
  revision: number | null;
}

export interface ContentTable {
  sha256: Buffer;
  /** What the parts refer to. */
  id: Generated<number>;
  /** Bytes decoded. */
  size: number;
  /** 0 identity, 1 zstd. */
  encoding: number;
  /** Bytes in the parts. */
  stored: number;
  created_at: Now;
}

export interface ContentPartTable {
  content: number;
  seq: number;
  /** At most 1 MiB. */
  bytes: Buffer;
}

export interface FileRevisionTable {
  id: Generated<number>;
  path: string;
  /** foldPath(path): equal for two paths that some file system would hold to be one. */
  path_key: string;
  module_id: string;
  /** Null, as sha256, where the name is known but nothing was ever loaded. */
  size: number | null;
  sha256: Buffer | null;
  mode: Generated<number>;
  version: string | null;
  backup: Generated<boolean>;
  loaded_at: Date | null;
  load_id: number | null;
}

export interface DeployTargetTable {
  id: Generated<number>;
  kind: "role" | "package";
  name: string;
  description: Generated<string>;
  selectable: Generated<boolean>;
  declared_by: string | null;
}

export interface RoleHasPackageTable {
  role_id: number;
  package_id: number;
  subdirectory: Generated<string>;
  module_id: string;
}

export interface SoftwareRevisionTable {
  number: number;
  digest: Buffer;
  created_at: Now;
  files: number;
  bytes: number;
  added: number;
  changed: number;
  removed: number;
  update_archive: Buffer | null;
  update_archive_size: number | null;
  package_closure: Json<Record<string, readonly string[]>>;
  selectable_roles: Json<readonly string[]>;
  selectable_packages: Json<readonly string[]>;
  /** What a revert puts back beside the files. */
  layout: Json<unknown>;
}

export interface RevisionFileTable {
  path: string;
  from_revision: number;
  /** Exclusive; null: the row holds still. */
  to_revision: number | null;
  size: number;
  sha256: Buffer;
  mode: number;
  backup: boolean;
  /** formatTarget() texts, sorted. */
  targets: string[];
  module_id: string;
  version: string | null;
}

export interface RevisionManifestTable {
  revision: number;
  target: string;
  sha256: Buffer;
  size: number;
  files: number;
  bytes: number;
}

export interface InstallationTable {
  id: string;
  host: string;
  directory: string;
  roles: RequiredJson<readonly string[]>;
  packages: RequiredJson<readonly string[]>;
  revision: number | null;
  outcome: string;
  problem: string | null;
  auto_update: boolean;
  updater_version: string;
  release_log: Json<{ readonly epoch: number; readonly size: number; readonly head: string } | null>;
  seen_at: Now;
  changed_at: Now;
}

export interface DbQueueDefinitionTable {
  task: string;
  bulk: boolean;
  max_instance: number;
  description: Generated<string>;
}

export interface DbQueueTaskTable {
  id: Generated<number>;
  task: string;
  object: Generated<string>;
  sub_object: Generated<string>;
  created_at: Now;
  not_before: Date | null;
  idle_from: Date | null;
  attempts: Generated<number>;
  deferred_reason: string | null;
}

export interface DbQueueCurrentTable {
  id: number;
  task: string;
  object: string;
  sub_object: string;
  created_at: Date;
  attempts: number;
  claim: string;
  hub: string;
  slot: number;
  started_at: Now;
  pid: number;
  backend_start: Date;
}

export interface DbQueueJournalTable {
  id: GeneratedAlways<number>;
  at: Now;
  task: string;
  event: string;
  detail: Generated<string>;
}

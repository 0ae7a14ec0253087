export {
  beginStatement,
  bindKysely,
  commit,
  type DatabaseAddress,
  type DatabaseConnection,
  formatServerVersion,
  type IsolationLevel,
  isRetryable,
  openDatabase,
  SERVER_VERSION_MIN,
  sqlState,
  type Transaction,
  type TransactionOptions,
  toDatabaseError,
  withTransaction,
} from "./connect.ts";
export {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from "./embedded/embedded.ts";
export { type Listener, type ListenOptions, listen } from "./listen.ts";
export { type Migration, migrate, readMigrations, type SchemaState, schemaState } from "./migrate.ts";
export type { Database } from "./schema.ts";

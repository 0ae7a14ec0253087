/** How the command line starts the supervisor: `runService(options)` of this package. */
export interface RunServiceOptions {
  /** The path of the configuration. */
  readonly configFile: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Aborted by the first SIGTERM or SIGINT: the service drains. */
  readonly signal: AbortSignal;
  /** A line for whoever started it (standard output): `ready URL-of-the-status-page`. */
  readonly say: (line: string) => void;
}

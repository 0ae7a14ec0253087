/** A program with what it needs to run. */
export interface ServiceRun {
  /** Absolute. */
  readonly program: string;
  readonly arguments: readonly string[];
  readonly directory: string;
  /** All of it; nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  /** Its own UTS namespace with this host name, where the system allows it; null: the machine's. */
  readonly hostName: string | null;
}

/** How a service ended; a signal of ours too. */
export interface ServiceEnd {
  readonly code: number | null;
  readonly signal: string | null;
}

/** One service that was launched. */
export interface LaunchedService {
  /** Sent to the whole process group. */
  signal(signal: "SIGTERM" | "SIGINT" | "SIGHUP"): void;
  /** Kills all that it has started; resolves when nothing of it is left. */
  kill(): Promise<void>;
  /** Resolves when the program has ended, however that came, and what it left behind with it. */
  readonly ended: Promise<ServiceEnd>;
}

/**
 * Launches one resource's service as a child of the guard, so that the guard can end it. The guard launches only under a
 * lease that holds at that moment.
 */
export interface ServiceLauncher {
  /** Rejects with RESOURCE_FAILED when it cannot be started, or when the lease does not hold. One at a time. */
  launch(run: ServiceRun): Promise<LaunchedService>;
  /**
   * What to set in a service's environment so that the machine is the virtual server to it (S2), and so that what a
   * former life left can be found again.
   */
  readonly environment: Readonly<Record<string, string>>;
  /** The host name that goes with it; null: services of this virtual server keep the machine's. */
  readonly hostName: string | null;
}

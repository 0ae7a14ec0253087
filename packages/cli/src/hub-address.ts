/** How a command reaches the hub, as options of its command line. */
export interface HubArguments {
  readonly hub?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  /** Of the commands on an installation: a relay that is asked before the hub. */
  readonly relay?: string;
}

/** The address that was given: `--hub`, else LOCKSTEP_HUB, else null. */
export function givenHubUrl(given: HubArguments): string | null {
  return given.hub ?? (process.env.LOCKSTEP_HUB || null);
}

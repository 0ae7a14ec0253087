import { join } from "node:path";

/**
 * What stands in the private directory of a virtual server on a node beside the directories of its resources. Those are
 * named by encodeURIComponent, which never gives an `@`.
 */
const own = (name: string) => (directory: string) => join(directory, `@${name}`);

/** The virtual server's data directory, which its services learn as LOCKSTEP_DATA. */
export const dataDirectoryOf = own("data");
/** What belongs to following the settings. */
export const settingsDirectoryOf = own("settings");
/** Which pushed configuration was laid down here. */
export const configPushFileOf = own("config-push");

/** Version of this updater. One version for all packages; a test holds it against package.json. */
export const UPDATER_VERSION = "0.1.0";

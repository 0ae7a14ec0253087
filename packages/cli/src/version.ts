import manifest from "../package.json" with { type: "json" };

/** The one version of all our packages. */
export const PRODUCT_VERSION: string = manifest.version;

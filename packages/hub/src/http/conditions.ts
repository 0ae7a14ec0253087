import { acceptsZstd, type ContentEncoding } from "@lockstep/protocol";

export { acceptsZstd, matchesTag, readRange } from "@lockstep/protocol";

/** Which form to send: zstd where it is stored so and the client takes it, else the plain one. */
export function chooseEncoding(accepts: string | undefined, stored: ContentEncoding): ContentEncoding {
  return stored === "zstd" && acceptsZstd(accepts) ? "zstd" : "identity";
}

export * from "./changes.ts";
export * from "./claim.ts";
export { countSignatures, examine } from "./examine.ts";
export {
  externalSigner,
  formatSignerFile,
  parseSignerFile,
  type SignerFile,
} from "./external-signer.ts";
export * from "./installation-proof.ts";
export * from "./key-file.ts";
export * from "./metadata-store.ts";
export * from "./order.ts";
export * from "./ordered.ts";
export * from "./publish.ts";
export * from "./release-log.ts";
export { type Destination, SEALED_BYTES_MAX } from "./sealed.ts";
export * from "./signer.ts";
export * from "./source.ts";
export * from "./strict-json.ts";
export * from "./trust-client.ts";

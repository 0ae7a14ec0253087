import { type TSchema, Type } from "typebox";

/** The values that the messages of the HTTP interface are made of. */
export const closed = { additionalProperties: false } as const;
export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export const Sha256Schema = Type.String({
  pattern: "^[0-9a-f]{64}$",
  description: "SHA-256, lower-case hex",
});
export const PathSchema = Type.String({ minLength: 1, maxLength: 4096 });
export const TargetSchema = Type.String({
  pattern: "^(role|package):.+$",
  maxLength: 1100,
  description: "role:Server/JobServer or package:MODULE/Package",
});
/** A number that JavaScript and the database both hold exactly; beyond it, what was sent is not what was meant. */
const count = { minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
export const Time = Type.Integer({ ...count, description: "milliseconds since 1970, UTC" });
export const Bytes = Type.Integer({ ...count, description: "bytes" });
export const RevisionNumber = Type.Integer(count);
/** The number of a load. */
export const LoadNumber = Type.Integer({ ...count, minimum: 1 });

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
export const Time = Type.Integer({ minimum: 0, description: "milliseconds since 1970, UTC" });
export const Bytes = Type.Integer({ minimum: 0, description: "bytes" });
export const RevisionNumber = Type.Integer({ minimum: 0 });

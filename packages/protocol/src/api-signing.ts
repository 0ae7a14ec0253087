import { type Static, Type } from "typebox";
import { PathSchema, Sha256Schema } from "./api-values.ts";

const closed = { additionalProperties: false };
const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) =>
  Type.Union([type, Type.Null()]);

/** GET /v1/signing: which keys sign what, until when, and what waits for a signature. */
export const SigningStatusSchema = Type.Object(
  {
    /** Grows when history begins anew: `lockstep keys recover`. */
    epoch: Type.Integer(),
    roles: Type.Array(
      Type.Object(
        {
          role: Type.Union([
            Type.Literal("root"),
            Type.Literal("targets"),
            Type.Literal("snapshot"),
            Type.Literal("timestamp"),
          ]),
          version: Nullable(Type.Integer()),
          /** Milliseconds since 1970. */
          expiresAt: Nullable(Type.Integer()),
          threshold: Type.Integer(),
          keys: Type.Array(Type.Object({ id: Type.String(), onHub: Type.Boolean() }, closed)),
        },
        closed,
      ),
    ),
    /** Keys that may sign orders for single installations. */
    orders: Type.Array(Type.Object({ id: Type.String(), onHub: Type.Boolean() }, closed)),
    log: Type.Object({ size: Type.Integer(), head: Type.String() }, closed),
    awaiting: Nullable(
      Type.Object({ revision: Type.Integer(), signatures: Type.Integer(), needed: Type.Integer() }, closed),
    ),
  },
  closed,
);
export type SigningStatus = Static<typeof SigningStatusSchema>;

/** GET /v1/signing/awaiting/origin: what led to the revision that waits. The hub says it, nobody signs it. */
export const AwaitingOriginSchema = Type.Object(
  {
    /** The loads since the current revision, oldest first: "NXT 16.4.6 (version)". */
    releases: Type.Array(Type.String()),
    /** Files of the current revision that the repository holds no more, with the modules that they were of. */
    removed: Type.Array(
      Type.Object({ path: PathSchema, sha256: Sha256Schema, module: Type.String() }, closed),
    ),
  },
  closed,
);
export type AwaitingOrigin = Static<typeof AwaitingOriginSchema>;

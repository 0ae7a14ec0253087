import { type Static, Type } from "typebox";
import { closed, LoadNumber, Nullable, RevisionNumber, Sha256Schema, Time } from "./api-values.ts";

/** Who an installation is, and what it is ordered to run. */
const Key = Type.String({ pattern: "^[0-9a-f]{64}$", description: "an ed25519 public key, hexadecimal" });
const Signature = Type.String({ pattern: "^[0-9a-f]{128}$" });
const Sealed = Type.String({ maxLength: 16_384, description: "a signed document of ours" });

/** POST /v1/enrolments */
export const EnrolmentOrderSchema = Type.Object(
  {
    hours: Type.Integer({ minimum: 1, maximum: 8760 }),
    note: Type.String({ maxLength: 200 }),
    /** The installation that it is for; null: one that never reported so far. */
    installation: Nullable(Type.String({ maxLength: 100 })),
  },
  closed,
);
export type EnrolmentOrder = Static<typeof EnrolmentOrderSchema>;

export const EnrolmentSecretSchema = Type.Object(
  { id: LoadNumber, secret: Type.String(), expiresAt: Time },
  closed,
);
export type EnrolmentSecret = Static<typeof EnrolmentSecretSchema>;

/** POST /v1/installations/{id}/enrolment */
export const EnrolmentRequestSchema = Type.Object(
  { secret: Type.String({ maxLength: 100 }), public: Key, signature: Signature },
  closed,
);
export type EnrolmentRequest = Static<typeof EnrolmentRequestSchema>;

/** POST /v1/installations/{id}/session */
export const SessionRequestSchema = Type.Object(
  {
    counter: LoadNumber,
    prior: Sha256Schema,
    nonce: Type.String({ pattern: "^[0-9a-f]{32}$" }),
    signature: Signature,
  },
  closed,
);
export type SessionRequest = Static<typeof SessionRequestSchema>;

export const SessionGrantSchema = Type.Object({ token: Type.String(), expiresAt: Time }, closed);
export type SessionGrant = Static<typeof SessionGrantSchema>;

export const InstallationAlarmSchema = Type.Object(
  {
    kind: Type.Union([
      Type.Literal("secret-reused"),
      Type.Literal("identity-taken"),
      Type.Literal("identity-copied"),
      Type.Literal("history-differs"),
      Type.Literal("log-altered"),
    ]),
    /** The id of the installation. */
    subject: Type.String(),
    detail: Type.String(),
    count: Type.Integer(),
    firstAt: Time,
    lastAt: Time,
  },
  closed,
);
export type InstallationAlarm = Static<typeof InstallationAlarmSchema>;

/** GET /v1/enrolments */
export const EnrolmentStatusSchema = Type.Object(
  {
    installations: Type.Integer(),
    enrolled: Type.Integer(),
    /** Those that reported and have no key here; at most 100. */
    notEnrolled: Type.Array(
      Type.Object({ id: Type.String(), host: Type.String(), directory: Type.String() }, closed),
    ),
    openSecrets: Type.Integer(),
    alarms: Type.Array(InstallationAlarmSchema),
  },
  closed,
);
export type EnrolmentStatus = Static<typeof EnrolmentStatusSchema>;

/** PUT /v1/orders/{installation}. Null: the newest revision again. */
export const OrderRequestSchema = Type.Object(
  { revision: Nullable(RevisionNumber), permit: Nullable(Sealed) },
  closed,
);
export type OrderRequest = Static<typeof OrderRequestSchema>;

/** GET /v1/orders/{installation}: the order in force, as it was signed. */
export const OrderAnswerSchema = Type.Object(
  {
    installation: Type.String(),
    counter: Type.Integer(),
    revision: Nullable(RevisionNumber),
    expiresAt: Time,
    order: Sealed,
    permit: Nullable(Sealed),
  },
  closed,
);
export type OrderAnswer = Static<typeof OrderAnswerSchema>;

/** POST /v1/signing/permits: for a hub that has the release keys. */
export const PermitRequestSchema = Type.Object(
  {
    installation: Type.String({ maxLength: 100 }),
    serial: Type.String({ pattern: "^[0-9a-f]{32}$" }),
    revision: LoadNumber,
    digest: Sha256Schema,
    expiresAt: Time,
  },
  closed,
);
export type PermitRequest = Static<typeof PermitRequestSchema>;

export const OrderListSchema = Type.Object({ orders: Type.Array(OrderAnswerSchema) }, closed);
export type OrderList = Static<typeof OrderListSchema>;

import { LockstepError } from "@lockstep/protocol";
import type { FastifySchemaCompiler } from "fastify";
import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { Convert } from "typebox/value";

/** At most this many faults are told; the first ones say enough. */
const FAULTS_MAX = 20;

/** Compiles a schema into a check that throws REQUEST_INVALID with what is wrong and where. */
export function compileCheck<T>(schema: TSchema, what: string): (value: unknown) => T {
  const compiled = Compile(schema);
  return (value) => {
    if (compiled.Check(value)) return value as T;
    const faults: { where: string; problem: string }[] = [];
    for (const { instancePath, message } of compiled.Errors(value)) {
      if (faults.length === FAULTS_MAX) break;
      faults.push({ where: instancePath === "" ? what : instancePath, problem: message });
    }
    const [first] = faults;
    throw new LockstepError(
      "REQUEST_INVALID",
      `${what} is not what the hub expects: ${first === undefined ? "wrong form" : `${first.where} ${first.problem}`}`,
      { hint: "GET /openapi.json describes every request.", faults },
    );
  };
}

/** For fastify: bodies as they are, parameters and queries read from their text. */
export const validatorCompiler: FastifySchemaCompiler<TSchema> = ({ schema, httpPart }) => {
  const what =
    httpPart === "body" ? "the body" : httpPart === "querystring" ? "the query" : `the ${httpPart}`;
  const check = compileCheck<unknown>(schema, what);
  return (value: unknown) => {
    try {
      return { value: check(httpPart === "body" ? value : Convert(schema, value)) };
    } catch (error) {
      return { error: error as Error };
    }
  };
};

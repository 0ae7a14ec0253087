import { LockstepError } from "@lockstep/protocol/wire";

/** The same error by code and by what was found, in the words of whoever knows how far things had come. */
export function retold(error: LockstepError, message: string, hint: string): LockstepError {
  const { code, expected, found } = error;
  return new LockstepError(code, message, {
    ...(expected === undefined ? {} : { expected }),
    ...(found === undefined ? {} : { found }),
    hint,
    cause: error,
  });
}

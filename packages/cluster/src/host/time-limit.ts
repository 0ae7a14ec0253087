import { afterOwnTime } from "@lockstep/platform";

/** Rejects when it takes longer; what goes on then is nobody's. */
export async function within<T>(promise: Promise<T>, limitMs: number): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const callLimitOff = afterOwnTime(limitMs, () =>
    limit.reject(new Error(`it takes longer than ${limitMs} ms`)),
  );
  try {
    return await Promise.race([promise, limit.promise]);
  } finally {
    callLimitOff();
  }
}

/** Whether it has settled by then, however. Never rejects. */
export function isSettledWithin(promise: Promise<unknown>, limitMs: number): Promise<boolean> {
  const settled = promise.then(
    () => true,
    () => true,
  );
  return within(settled, limitMs).catch(() => false);
}

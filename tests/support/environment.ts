import type { TestContext } from "node:test";

/** Sets variables of this process until the test is over. */
export function setEnvironment(t: TestContext, environment: Readonly<Record<string, string>>): void {
  const before = { ...process.env };
  t.after(() => {
    for (const name of Object.keys(environment))
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
  });
  Object.assign(process.env, environment);
}

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { loadPlugins } from "../../packages/service/src/components/plugins.ts";
import { aStep, run, temporaryDirectory } from "./one-step.ts";

const example = join(import.meta.dirname, "../../examples/plugin/checksums.mjs");

async function files(t: TestContext, texts: Readonly<Record<string, string>>): Promise<string[]> {
  const directory = await temporaryDirectory(t);
  return await Promise.all(
    Object.entries(texts).map(async ([name, text]) => {
      await writeFile(join(directory, name), text);
      return join(directory, name);
    }),
  );
}

test("the example plug-in does what its page says", async (t) => {
  const { components, problems } = await loadPlugins([example], "external");
  assert.deepEqual(problems, []);
  const sum = createHash("sha256").update("content").digest("hex");
  const [list = "", file = ""] = await files(t, {
    list: `${sum}  a\n${sum} *b\n`,
    a: "content",
    b: "content",
  });
  const good = await run(t, aStep("Checksums.Verify", { list }), { plugins: components });
  assert.deepEqual([good.outcome, good.output], ["success", { files: 2 }], good.message);
  await writeFile(file, "other");
  await writeFile(list, `${sum}  a\n${sum}  b\n${sum}  c\n`);
  const bad = await run(t, aStep("Checksums.Verify", { list }), { plugins: components });
  assert.match(bad.message, /^2 of 3 files are not as listed: a: has another content; c: is missing$/);
  assert.match(bad.log, /warn a: has another content/);
  const wrong = await run(t, aStep("Checksums.Verify", { lost: list }), { plugins: components });
  assert.match(wrong.message, /JOB_PARAMETERS_INVALID.*2 faults: list is missing; lost is not a parameter/);
});

test("broken plug-ins are named with their problem, and the others work", async (t) => {
  const task = (more: string) => `export const components = [{ name: "Mine", tasks: { Go: { ${more} } } }];`;
  const good = task(
    `execution: "either", parameters: {}, run: async () => ({ kind: "success", message: "went" })`,
  );
  const broken = {
    "syntax.mjs": "export const components = [",
    "throws.mjs": `throw new Error("not today")`,
    "empty.mjs": "export const other = 1;",
    "waits.mjs": "await new Promise((resolve) => setTimeout(resolve, 600_000).unref());",
    "built-in.mjs": good.replace("Mine", "File"),
    "no-run.mjs": task(`execution: "either", parameters: {}`),
    "execution.mjs": task(`execution: "outside", parameters: {}, run() {}`),
    "type.mjs": task(`execution: "either", parameters: { a: { type: "date" } }, run() {}`),
  };
  const paths = await files(t, { ...broken, "good.mjs": good, "again.mjs": good });
  const { components, problems } = await loadPlugins([...paths, "/no/such/file.mjs"], "external", 2_000);
  assert.deepEqual(
    components.map(({ name }) => name),
    ["Mine"],
  );
  const found = problems.map(({ code, message }) => `${code} ${message}`);
  const expected = [
    /syntax\.mjs is not used/,
    /throws\.mjs is not used: not today/,
    /empty\.mjs is not used: it exports no list/,
    /waits\.mjs is not used: it was not loaded within/,
    /built-in\.mjs.*File is built in/,
    /no-run\.mjs.*Mine\.Go has no function run/,
    /execution\.mjs.*has no execution/,
    /type\.mjs.*the parameter a without a type/,
    /again\.mjs.*another plug-in already/,
    /file\.mjs is not used/,
  ];
  assert.equal(found.length, expected.length, found.join("\n"));
  expected.forEach((pattern, index) => {
    assert.match(found[index] ?? "", pattern);
    assert.match(found[index] ?? "", /^JOB_PLUGIN_INVALID/);
  });
  const ended = await run(t, aStep("Mine.Go"), { plugins: components });
  assert.deepEqual([ended.outcome, ended.message], ["success", "went"]);
});

test("the service itself loads only what is declared internal", async (t) => {
  const text = (name: string) =>
    `export const components = [{ name: "${name}", tasks: { Go: { execution: "either", parameters: {}, run() {} } } }];`;
  const paths = await files(t, {
    "a.mjs": text("A"),
    "b.internal.mjs": text("B"),
    "c.internal.js.mjs": text("C"),
  });
  const names = async (where: "internal" | "external") =>
    (await loadPlugins(paths, where)).components.map(({ name }) => name);
  assert.deepEqual([await names("internal"), await names("external")], [["B"], ["A", "B", "C"]]);
});

test("a component that nobody has is said with all that there are", async (t) => {
  const ended = await run(t, aStep("Nothing.Run"));
  assert.deepEqual([ended.outcome, ended.permanent], ["error", true]);
  assert.match(
    ended.message,
    /^JOB_COMPONENT_UNKNOWN: .*Nothing.*AutoUpdate, Command, File, Http, JobCheck, .*Wait/,
  );
  const task = await run(t, aStep("Command.Rum"));
  assert.match(task.message, /no task Rum.*Run, Script/);
  for (const name of ["toString", "__proto__", "constructor"])
    assert.match((await run(t, aStep(`${name}.x`))).message, /^JOB_COMPONENT_UNKNOWN/);
});

test("a task that cannot run where its step says does not begin", async (t) => {
  let began = 0;
  const task = (execution: "internal" | "external") => ({
    execution,
    description: "",
    parameters: {},
    run: async () => {
      began++;
      return { kind: "success" } as const;
    },
  });
  const plugins = [{ name: "Mine", tasks: { In: task("internal"), Out: task("external") } }];
  const end = (what: string, execution: "internal" | "external") =>
    run(t, aStep(what, {}, { execution }), { plugins });
  for (const [what, execution] of [
    ["Mine.In", "external"],
    ["Mine.Out", "internal"],
  ] as const) {
    const { outcome, permanent, message } = await end(what, execution);
    assert.deepEqual([outcome, permanent], ["error", true]);
    assert.match(message, /^JOB_EXECUTION_INVALID: Mine\.(In|Out) cannot run there \(expected/);
  }
  assert.equal(began, 0);
  assert.equal((await end("Mine.In", "internal")).outcome, "success");
  assert.equal((await end("Mine.Out", "external")).outcome, "success");
});

test("whatever a task throws or returns becomes a result", async (t) => {
  const odd = (run: () => unknown) => [
    {
      name: "Odd",
      tasks: {
        Go: { execution: "either", description: "", parameters: {}, run: run as () => Promise<never> },
      },
    } as const,
  ];
  const results: [() => unknown, RegExp][] = [
    [
      () => {
        throw new Error("outer", { cause: new Error("inner") });
      },
      /^outer: inner$/,
    ],
    [
      () => {
        throw "a text";
      },
      /^a text$/,
    ],
    [async () => undefined, /gave no result/],
    [async () => ({ kind: "done" }), /gave no result/],
    [
      async () => ({ kind: "success", output: { n: 1n } }),
      /cannot be written as JSON|can be written as JSON/,
    ],
    [async () => ({ kind: "success", output: { x: "x".repeat(300_000) } }), /larger than/],
    [async () => ({ kind: "error" }), /^$/],
    [() => Promise.reject(Object.create(null)), /^something was thrown that cannot be read$/],
    [async () => ({ kind: "success", message: Object.create(null) }), /result that cannot be read/],
  ];
  for (const [work, message] of results) {
    const ended = await run(t, aStep("Odd.Go"), { plugins: odd(work) });
    assert.equal(ended.outcome, "error");
    assert.match(ended.message, message);
    assert.deepEqual(ended.left, []);
  }
});

test("a task that wants to be asked again at once does not keep everybody busy with that", async (t) => {
  for (const afterMs of [-5, 0, 1]) {
    const again = async () => ({ kind: "deferred", afterMs }) as const;
    const task = { execution: "either", description: "", parameters: {}, run: again } as const;
    const plugins = [{ name: "Odd", tasks: { Go: task } }];
    assert.equal((await run(t, aStep("Odd.Go"), { plugins })).deferMs, 100);
  }
});

test("with ComponentDebugMode the log says what the task was given and how it ended, and no hidden value", async (t) => {
  const task = {
    execution: "either",
    description: "",
    parameters: {
      name: { type: "text", description: "" },
      secret: { type: "text", hidden: true, description: "" },
      count: { type: "integer", default: 3, description: "" },
      rest: { type: "text", description: "" },
    },
    run: async () => ({ kind: "success" }) as const,
  } as const;
  const plugins = [
    { name: "Odd", tasks: { Go: task, Fail: { ...task, run: async () => assert.fail("so") } } },
  ];
  const parameters = { name: "of the secret hunter22", secret: "hunter22" };
  const debug = await run(t, aStep("Odd.Go", parameters), { plugins, debug: true });
  assert.match(
    debug.log,
    /^info Odd\.Go begins: name="of the secret <HIDDEN>", secret=<HIDDEN>, count=3\ninfo Odd\.Go ended after \d+\.\d{3} s with success$/,
  );
  const failed = await run(t, aStep("Odd.Fail", parameters), { plugins, debug: true });
  assert.match(failed.log, /Odd\.Fail ended after .* with the error AssertionError.*: so/);
  assert.equal((await run(t, aStep("Odd.Go", parameters), { plugins })).log, "");
});

test("a task that does not stop is left behind, and its process must end", async (t) => {
  const forever = [
    {
      name: "Odd",
      tasks: {
        Go: { execution: "either", description: "", parameters: {}, run: () => new Promise<never>(() => {}) },
      },
    } as const,
  ];
  const ended = await run(t, aStep("Odd.Go", {}, { timeLimitMs: 20 }), {
    plugins: forever,
    abortGraceMs: 20,
  });
  assert.deepEqual([ended.outcome, ended.terminate, ended.left], ["error", true, []]);
  assert.match(ended.message, /JOB_TIME_LIMIT.*did not stop/);
});

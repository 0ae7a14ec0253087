import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { checkTemplate, type TemplateDefinition, type TemplateStepDefinition } from "./job-template.ts";
import { type ExpandedProcess, expandTemplate } from "./job-template-expand.ts";

type Changes = Partial<Omit<TemplateStepDefinition, "name">>;

function step(name: string, changes: Changes = {}): TemplateStepDefinition {
  return { name, component: "Wait", task: "Delay", queue: "\\\\JOB1", ...changes };
}

function template(...steps: TemplateStepDefinition[]): TemplateDefinition {
  return { name: "T", steps };
}

function problems(of: TemplateDefinition): string[] {
  return checkTemplate(of).map(({ at, problem }) => `${at.join(".")}: ${problem}`);
}

function expanded(
  of: TemplateDefinition,
  given: Record<string, unknown> = {},
  priority?: number,
): ExpandedProcess {
  const result = expandTemplate(of, given, priority);
  assert.ok(!("faults" in result), JSON.stringify(result));
  return result;
}

test("a sound template has no faults", () => {
  const of: TemplateDefinition = {
    name: "Nightly",
    parameters: { day: { required: true }, password: { hidden: true } },
    steps: [
      step("A", { onSuccess: ["B", "C"], onError: ["Tell"] }),
      step("B", { onSuccess: ["D"], parameters: { text: "${day} ${A.count}", key: "${password}" } }),
      step("C", { onSuccess: ["D"] }),
      step("D", { parameters: { text: "${A.count} ${B.path}" }, exclusiveObject: "day ${day}" }),
      step("Tell"),
    ],
  };
  assert.deepEqual(checkTemplate(of), []);
});

test("all faults are told at once, each with its place", () => {
  const of: TemplateDefinition = {
    name: "T",
    parameters: { day: { required: true, default: 1 }, secret: { hidden: true } },
    steps: [
      step("A", { onSuccess: ["b", "B", "B"], onError: ["B"], ignoreErrors: true, freezeOnError: true }),
      step("B", { queue: "\\\\${secret}", parameters: { x: ["${dya}", "${C.path}", "${"] }, hidden: ["y"] }),
      step("C", { backOff: true, exclusiveObject: "${A.x}" }),
      step("C"),
    ],
  };
  assert.deepEqual(problems(of).sort(), [
    "parameters.day.required: a parameter with a default is never missing",
    "steps.0.freezeOnError: never happens: with ignoreErrors an error is a success",
    "steps.0.onError: is never followed: with ignoreErrors an error is a success",
    'steps.0.onSuccess.0: there is no step "b"; did you mean "B"?',
    'steps.0.onSuccess.2: "B" is named twice',
    'steps.1.hidden.0: "y" is neither a parameter of this step nor an output that a later step uses',
    "steps.1.parameters.x.0: ${dya}: the template has no such parameter; write $${ for the characters",
    'steps.1.parameters.x.1: ${C.path}: "C" does not come before this step',
    "steps.1.parameters.x.2: a reference ${ is not closed; write $${ for the characters",
    "steps.1.queue: ${secret} is hidden and may not stand in a text that is shown",
    "steps.2.backOff: says how to wait between tries, but there are no retries",
    "steps.2.exclusiveObject: ${A.x}: outputs are only for parameters",
    'steps.3.name: "C" is also the name of step 3',
  ]);
});

test("what asks the service cannot run in a worker, and runs inside without a word", () => {
  const place = (component: string, execution?: "internal" | "external") => {
    const of = template(step("A", { component, ...(execution === undefined ? {} : { execution }) }));
    const expanded = expandTemplate(of, {});
    return [problems(of), "faults" in expanded ? null : expanded.steps[0]?.execution];
  };
  for (const component of ["AutoUpdate", "JobCheck", "Wait"]) {
    const fault = `steps.0.execution: must be "internal" for ${component}: a worker process cannot ask the service`;
    assert.deepEqual(place(component, "external")[0], [fault]);
    assert.deepEqual(place(component, "internal"), [[], "internal"]);
    assert.deepEqual(place(component), [[], "internal"]);
  }
  assert.deepEqual(place("Http", "external"), [[], "external"]);
  assert.deepEqual(place("Stranger"), [[], "external"]);
});

test("what no text can hold is refused, not altered", () => {
  const of = template(step("A\u0000", { parameters: { list: ["fine", "\ud800"] } }));
  assert.deepEqual(
    checkTemplate(of).map(({ at }) => at.join(".")),
    ["steps.0.name", "steps.0.parameters.list.1"],
  );
  const given = expandTemplate({ ...template(step("A")), parameters: { x: {} } }, { x: ["\u0000"] });
  assert.ok("faults" in given);
});

test("each circle is told once, with its steps in order, and so is what lies behind it", () => {
  const of = template(
    step("Start", { onSuccess: ["A"] }),
    step("A", { onSuccess: ["B"] }),
    step("B", { onError: ["C"] }),
    step("C", { onSuccess: ["A", "After"] }),
    step("After"),
    step("Self", { onSuccess: ["Self"] }),
  );
  assert.deepEqual(problems(of), [
    "steps.1: the steps A -> B -> C -> A wait for each other",
    "steps.5: the steps Self -> Self wait for each other",
    'steps.4: "After" is never reached: it waits for steps that wait for each other',
  ]);
});

test("a step of ten thousand in a row still knows what comes before it, and deep chains do not overflow", () => {
  const count = 10_000;
  const steps = Array.from({ length: count }, (_, index) =>
    step(`S${index}`, {
      ...(index + 1 < count ? { onSuccess: [`S${index + 1}`] } : {}),
      ...(index > 0 ? { parameters: { first: "${S0.x}" } } : {}),
    }),
  );
  assert.deepEqual(checkTemplate(template(...steps)), []);
  assert.equal(expanded(template(...steps)).steps.at(-1)?.pending, 1);
});

/** Templates whose ways lead anywhere, circles included. */
const anyTemplate = fc
  .array(fc.tuple(fc.array(fc.nat(11), { maxLength: 3 }), fc.array(fc.nat(11), { maxLength: 2 })), {
    minLength: 1,
    maxLength: 12,
  })
  .map((ways) => {
    const name = (index: number) => `S${index % ways.length}`;
    return template(
      ...ways.map(([good, bad], index) =>
        step(name(index), {
          onSuccess: [...new Set(good.map(name))],
          onError: [...new Set(bad.map(name))],
        }),
      ),
    );
  });

/** The naive way: walks from every step. */
function reaches(of: TemplateDefinition, from: string, to: string): boolean {
  const seen = new Set<string>();
  const open = [from];
  for (let name = open.pop(); name !== undefined; name = open.pop())
    for (const next of successors(of, name)) {
      if (next === to) return true;
      if (!seen.has(next)) open.push(next);
      seen.add(next);
    }
  return false;
}

function successors(of: TemplateDefinition, name: string): string[] {
  const found = of.steps.find((each) => each.name === name);
  return [...(found?.onSuccess ?? []), ...(found?.onError ?? [])];
}

test("circles, unreachable steps and the order of references agree with walking the ways", () => {
  fc.assert(
    fc.property(anyTemplate, fc.nat(11), fc.nat(11), (of, a, b) => {
      const names = of.steps.map(({ name }) => name);
      const inCircle = names.filter((name) => reaches(of, name, name));
      const behind = names.filter(
        (name) => !inCircle.includes(name) && inCircle.some((circle) => reaches(of, circle, name)),
      );
      const told = problems(of);
      assert.equal(told.length > 0, inCircle.length > 0);
      for (const name of behind) {
        const index = names.indexOf(name);
        assert.ok(told.some((text) => text.startsWith(`steps.${index}: "${name}" is never reached`)));
      }
      if (inCircle.length > 0) return;
      const [from = "", to = ""] = [names[a % names.length], names[b % names.length]];
      const withReference: TemplateDefinition = {
        ...of,
        steps: of.steps.map((each) =>
          each.name === to ? { ...each, parameters: { x: `\${${from}.out}` } } : each,
        ),
      };
      assert.equal(problems(withReference).length === 0, reaches(of, from, to));
    }),
    { numRuns: 500 },
  );
});

test("expansion counts the ways that lead to each step", () => {
  fc.assert(
    fc.property(anyTemplate, (of) => {
      if (checkTemplate(of).length > 0) return;
      const { steps } = expanded(of);
      const incoming = steps.map(() => 0);
      for (const each of steps)
        for (const target of [...each.onSuccess, ...each.onError])
          incoming[target] = (incoming[target] ?? 0) + 1;
      assert.deepEqual(
        steps.map(({ pending }) => pending),
        incoming,
      );
      assert.ok(incoming.includes(0));
    }),
  );
});

test("parameters are filled in, and what is hidden stays hidden in whatever it goes into", () => {
  const of: TemplateDefinition = {
    name: "T",
    priority: 3,
    parameters: {
      server: { default: "JOB1" },
      password: { hidden: true, required: true },
      note: {},
    },
    steps: [
      step("A", {
        queue: "\\\\${server}",
        parameters: { header: { auth: ["Bearer ${password}"] }, plain: "${note}", port: 5 },
        hidden: ["token"],
        onSuccess: ["B"],
      }),
      step("B", { parameters: { t: "${A.token}", n: "${A.count}" }, priority: 15, component: "Command" }),
    ],
  };
  assert.deepEqual(checkTemplate(of), []);
  const { priority, parameters, hidden, steps } = expanded(of, { password: "secret" });
  assert.equal(priority, 3);
  assert.deepEqual(parameters, { server: "JOB1", password: "secret", note: null });
  assert.deepEqual(hidden, ["password"]);
  const [a, b] = steps;
  assert.equal(a?.queue, "\\\\JOB1");
  assert.deepEqual(a?.parameters, { header: { auth: ["Bearer secret"] }, plain: null, port: 5 });
  assert.deepEqual(a?.hidden, ["token", "header"]);
  assert.deepEqual([a?.pending, a?.onSuccess, a?.priority, a?.execution], [0, [1], 3, "internal"]);
  assert.deepEqual(b?.parameters, { t: "${A.token}", n: "${A.count}" });
  assert.deepEqual(b?.hidden, ["t"]);
  assert.deepEqual([b?.pending, b?.priority, b?.execution], [1, 15, "external"]);
  // Whoever starts it decides for the steps that have no priority of their own.
  assert.deepEqual(
    expanded(of, { password: "x" }, 12).steps.map((each) => each.priority),
    [12, 15],
  );
});

test("wrong values are told all at once, without the values of hidden ones", () => {
  const of: TemplateDefinition = {
    name: "T",
    parameters: { server: {}, password: { required: true, hidden: true } },
    steps: [step("A", { queue: "${server}" })],
  };
  const result = expandTemplate(of, { serevr: "x", server: "" });
  assert.ok("faults" in result);
  assert.deepEqual(
    result.faults.map(({ at }) => at.join(".")),
    ["parameters.serevr", "parameters.password", "steps.0.queue"],
  );
});

test("a short template cannot become a process beyond measure", () => {
  const problems = (steps: number, text: string) => {
    const all = Array.from({ length: steps }, (_, index) => step(`S${index}`, { parameters: { text } }));
    const result = expandTemplate(
      { name: "T", parameters: { p: { default: "x".repeat(1024 * 1024) } }, steps: all },
      {},
    );
    return "faults" in result ? result.faults.map(({ at, problem }) => `${at.join(".")}: ${problem}`) : [];
  };
  assert.deepEqual(problems(8, "${p}".repeat(4)), []);
  assert.deepEqual(problems(1, "${p}".repeat(1000)), [
    "steps.0: its references put in more than 4194304 characters",
  ]);
  assert.deepEqual(problems(33, "${p}"), [
    "steps: references put more than 33554432 characters into the steps",
  ]);
});

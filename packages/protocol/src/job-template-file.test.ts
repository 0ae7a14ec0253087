import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "./errors.ts";
import { checkTemplateDocument, parseTemplateFile } from "./job-template-file.ts";

function faultsOf(run: () => unknown): string[] {
  try {
    run();
  } catch (error) {
    assert.ok(isLockstepError(error, "JOB_TEMPLATE_INVALID"), String(error));
    return error.faults.map(({ where, problem }) => `${where} ${problem}`);
  }
  return assert.fail("no fault was found");
}

const GOOD = `
name = "Nightly/Import"
description = "Fetches and imports"
limit = 2

[parameters]
day = { required = true }
password = { hidden = true }

[[steps]]
name = "Fetch"
component = "Http"
task = "Request"
queue = '\\\\JOB1'
onSuccess = ["Import"]
[steps.parameters]
url = "https://example.test/\${day}"
since = 2026-01-31

[[steps]]
name = "Import"
component = "Command"
task = "Run"
queue = '\\\\JOB1'
hidden = ["key"]
parameters = { command = ["import", "\${Fetch.path}"], key = "\${password}" }
`;

test("a file in TOML and its JSON are the same template", () => {
  const template = parseTemplateFile(GOOD, "nightly.toml");
  assert.equal(template.name, "Nightly/Import");
  assert.equal(template.steps[0]?.queue, "\\\\JOB1");
  assert.equal(template.steps[0]?.parameters?.since, "2026-01-31");
  assert.deepEqual(parseTemplateFile(JSON.stringify(template), "nightly.json"), template);
  assert.deepEqual(checkTemplateDocument(template, "the template"), template);
});

test("every fault of form is told with its line, and all of them", () => {
  const text = `name = "x y"
descripton = "a"

[[steps]]
name = "A"
component = "Wait"
task = "Delay"
queue = "q"
onsuccess = ["B"]
execution = "intern"
priority = 20
retries = "x"

[[steps]]
name = "B"
`;
  const faults = faultsOf(() => parseTemplateFile(text, "t.toml"));
  assert.deepEqual(
    faults.map((fault) =>
      fault
        .split(" ")
        .slice(0, -1)
        .join(" ")
        .replace(/ must.*| is.*/, ""),
    ),
    [
      "t.toml:1 name:",
      "t.toml:2 descripton:",
      't.toml:9 steps[1] "A".onsuccess:',
      't.toml:10 steps[1] "A".execution:',
      't.toml:11 steps[1] "A".priority:',
      't.toml:12 steps[1] "A".retries:',
      't.toml:14 steps[2] "B".component:',
      't.toml:14 steps[2] "B".task:',
      't.toml:14 steps[2] "B".queue:',
    ],
  );
  assert.match(faults[2] ?? "", /did you mean onSuccess\?$/);
  assert.match(faults[3] ?? "", /must be "internal" or "external"$/);
});

test("faults of sense have their lines, too", () => {
  const text = GOOD.replace('["Import"]', '["Imprt"]').replace("${password}", "${pasword}");
  assert.deepEqual(
    faultsOf(() => parseTemplateFile(text, "t.toml")),
    [
      't.toml:15 steps[1] "Fetch".onSuccess[1]: there is no step "Imprt"; did you mean "Import"?',
      't.toml:26 steps[2] "Import".parameters.command[2]: ${Fetch.path}: "Fetch" does not come before this step',
      't.toml:26 steps[2] "Import".parameters.key: ${pasword}: the template has no such parameter; did you mean "password"?; write $${ for the characters',
    ],
  );
});

test("what is no TOML and no JSON is told where it stops being one", () => {
  assert.match(faultsOf(() => parseTemplateFile("name = \n", "t.toml"))[0] ?? "", /^t\.toml:1:8 /);
  assert.match(faultsOf(() => parseTemplateFile('{"name": ', "t.json"))[0] ?? "", /^t\.json /);
  for (const text of ["null", "[]", '"text"', "1"])
    assert.match(faultsOf(() => parseTemplateFile(text, "t"))[0] ?? "", /^t must be object/);
  assert.match(faultsOf(() => parseTemplateFile("nul", "t.json"))[0] ?? "", /^t\.json .*JSON/);
  assert.match(faultsOf(() => checkTemplateDocument([], "the template"))[0] ?? "", /must be object/);
  assert.match(
    faultsOf(() => checkTemplateDocument({ name: "a", steps: [1] }, "x"))[0] ?? "",
    /^steps\[1\] must be object/,
  );
});

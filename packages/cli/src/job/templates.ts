import { basename } from "node:path";
import { isLockstepError, type JobTemplate, LockstepError } from "@lockstep/protocol/wire";
import { counted, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";
import { type JobArguments, withJobs } from "./connect.ts";
import { readText } from "./values.ts";

/** Whether a word names a file rather than a stored template: names have slashes, too. */
export function isTemplateFile(word: string): boolean {
  return /\.(?:toml|json)$/i.test(word) || /^(?:\.{1,2})?[\\/]/.test(word) || word === "-";
}

/** Throws FILE_ACCESS_FAILED, JOB_TEMPLATE_INVALID. */
export async function readTemplateFile(file: string): Promise<JobTemplate> {
  const text = readText(file);
  // Only now: it brings the schemas along.
  const { parseTemplateFile } = await import("@lockstep/protocol/job-template-file");
  return parseTemplateFile(text, file === "-" ? "standard input" : basename(file));
}

/** Reads all files, and throws with the faults of all of them. */
async function readAll(files: readonly string[]): Promise<JobTemplate[]> {
  const templates: JobTemplate[] = [];
  const failures: LockstepError[] = [];
  for (const file of files)
    try {
      templates.push(await readTemplateFile(file));
    } catch (error) {
      if (!isLockstepError(error, "JOB_TEMPLATE_INVALID")) throw error;
      failures.push(error);
    }
  const [first] = failures;
  if (first === undefined) return templates;
  if (failures.length === 1) throw first;
  throw new LockstepError(
    "JOB_TEMPLATE_INVALID",
    `there are faults in ${counted(failures.length, "template")}`,
    {
      faults: failures.flatMap(({ faults }) => faults),
      ...(first.hint === undefined ? {} : { hint: first.hint }),
    },
  );
}

/** `lockstep job template check`. */
export async function checkTemplates(files: readonly string[], options: JobArguments): Promise<void> {
  const output = new Output(options);
  const templates = await readAll(files);
  output.document({
    templates: templates.map(({ name, steps }, index) => ({ file: files[index], name, steps: steps.length })),
  });
  templates.forEach(({ name, steps }, index) => {
    output.line(`${files[index]}: ${name}, ${counted(steps.length, "step")}, no fault`);
  });
}

/** `lockstep job template put`: all files are read before the first is stored. */
export async function putTemplates(files: readonly string[], options: JobArguments): Promise<void> {
  const output = new Output(options);
  const templates = await readAll(files);
  await withJobs(options, async (jobs) => {
    const stored: { name: string; steps: number }[] = [];
    for (const template of templates) {
      const { template: kept } = await jobs.putTemplate(template);
      stored.push({ name: kept.name, steps: kept.steps.length });
      output.line(`${kept.name}: ${counted(kept.steps.length, "step")}`);
    }
    output.document({ templates: stored });
  });
}

/** `lockstep job template list`. */
export async function listTemplates(options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    const list = await jobs.templates();
    output.document(list);
    printTable(
      output,
      [
        { title: "template" },
        { title: "steps", align: "right" },
        { title: "limit", align: "right" },
        { title: "running", align: "right" },
        { title: "changed" },
        { title: "parameters", shrinks: true },
        { title: "description", shrinks: true },
      ],
      list.templates.map((each) => [
        each.name,
        String(each.steps),
        each.limit === null ? "-" : String(each.limit),
        String(each.running),
        formatUtc(each.changedAt),
        each.parameters.join(" "),
        each.description,
      ]),
    );
  });
}

/** `lockstep job template show`: what it prints can be stored again. */
export async function showTemplate(name: string, options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    const stored = await jobs.template(name);
    output.document(stored);
    output.line(JSON.stringify(stored.template, null, 2));
    output.note(`stored ${formatUtc(stored.changedAt)} by ${stored.changedBy}`);
  });
}

/** `lockstep job template remove`. */
export async function removeTemplate(name: string, options: JobArguments): Promise<void> {
  const output = new Output(options);
  await withJobs(options, async (jobs) => {
    await jobs.removeTemplate(name);
    output.document({ removed: name });
    output.note(`removed ${name}`);
  });
}

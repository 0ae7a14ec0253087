import { collectSecrets, HIDDEN, maskParameters, maskText } from "@lockstep/core";
import { type JobTemplate, LockstepError, type StoredTemplate, type TemplateList } from "@lockstep/protocol";
import { checkTemplateDocument } from "@lockstep/protocol/job-template-file";
import type pg from "pg";
import { withTransaction } from "../db/connect.ts";
import { toJsonText } from "./json-text.ts";

/**
 * Stored templates. Each is checked whole before it is stored, so whatever starts it later need not.
 *
 * What a template hides (defaults of hidden parameters, hidden parameters of its steps) never leaves the hub again but in
 * a step for a job server. So that a template that was looked at can be changed and put back, `<HIDDEN>` in such a place
 * stands for what is stored there.
 */
interface TemplateRow {
  readonly name: string;
  readonly definition: JobTemplate;
  readonly changedAt: Date;
  readonly changedBy: string;
}

const COLUMNS = `name, definition, changed_at as "changedAt", changed_by as "changedBy"`;

/** The template as it runs, hidden values included. Throws JOB_TEMPLATE_UNKNOWN. */
export async function readTemplate(client: pg.Pool | pg.PoolClient, name: string): Promise<JobTemplate> {
  return (await readRow(client, name)).definition;
}

async function readRow(client: pg.Pool | pg.PoolClient, name: string): Promise<TemplateRow> {
  const { rows } = await client.query<TemplateRow>(`select ${COLUMNS} from job_template where name = $1`, [
    name,
  ]);
  const [row] = rows;
  if (row !== undefined) return row;
  throw new LockstepError("JOB_TEMPLATE_UNKNOWN", `there is no template ${JSON.stringify(name)}`, {
    hint: "lockstep job template list shows what there is.",
  });
}

/** A template as people may see it. Throws JOB_TEMPLATE_UNKNOWN. */
export async function showTemplate(pool: pg.Pool, name: string): Promise<StoredTemplate> {
  return toStored(await readRow(pool, name));
}

function toStored({ definition, changedAt, changedBy }: TemplateRow): StoredTemplate {
  return { template: maskTemplate(definition), changedAt: changedAt.getTime(), changedBy };
}

export async function listTemplates(pool: pg.Pool): Promise<TemplateList> {
  const { rows } = await pool.query<TemplateRow & { readonly running: number }>(
    `select ${COLUMNS}, (select count(*) from job_process p
       where p.name = t.name and p.template = t.name and p.finished_at is null) as running
     from job_template t order by name`,
  );
  return {
    templates: rows.map(({ name, definition, changedAt, running }) => ({
      name,
      description: maskTemplate(definition).description ?? "",
      parameters: Object.entries(definition.parameters ?? {}).map(([parameter, { required }]) =>
        required === true ? `${parameter}*` : parameter,
      ),
      steps: definition.steps.length,
      limit: definition.limit ?? null,
      running,
      changedAt: changedAt.getTime(),
    })),
  };
}

/**
 * Stores a template under its name, in place of the one that was there. Processes that run already keep their steps.
 * Throws JOB_TEMPLATE_INVALID with every fault.
 */
export async function putTemplate(
  pool: pg.Pool,
  document: unknown,
  changedBy: string,
): Promise<StoredTemplate> {
  const template = checkTemplateDocument(document, "the template");
  return await withTransaction(pool, async ({ client }) => {
    const { rows } = await client.query<TemplateRow>(
      `select ${COLUMNS} from job_template where name = $1 for update`,
      [template.name],
    );
    const definition = restoreHidden(template, rows[0]?.definition ?? null);
    const stored = await client.query<TemplateRow>(
      `insert into job_template (name, definition, changed_by) values ($1, $2, $3)
       on conflict (name) do update set definition = excluded.definition, changed_at = now(),
         changed_by = excluded.changed_by
       returning ${COLUMNS}`,
      [definition.name, toJsonText(definition), changedBy],
    );
    const [row] = stored.rows;
    if (row === undefined) throw new LockstepError("INTERNAL", "a template was stored and is not there");
    return toStored(row);
  });
}

/** Throws JOB_TEMPLATE_UNKNOWN, JOB_TEMPLATE_IN_USE. Processes of it go on. */
export async function removeTemplate(pool: pg.Pool, name: string): Promise<void> {
  await withTransaction(pool, async ({ client }) => {
    await client.query("select from job_template where name = $1 for update", [name]);
    const { rows } = await client.query<{ name: string }>(
      "select name from job_schedule where template = $1 order by name",
      [name],
    );
    if (rows.length > 0)
      throw new LockstepError("JOB_TEMPLATE_IN_USE", `schedules start processes of ${JSON.stringify(name)}`, {
        found: rows.map((row) => row.name).join(", "),
        hint: "Remove these schedules first.",
      });
    const { rowCount } = await client.query("delete from job_template where name = $1", [name]);
    if (rowCount === 0) await readRow(client, name);
  });
}

/** Replaces what a template hides. */
export function maskTemplate(template: JobTemplate): JobTemplate {
  const parameters = template.parameters ?? {};
  const hiddenNames = Object.keys(parameters).filter((name) => parameters[name]?.hidden === true);
  const defaults = Object.fromEntries(hiddenNames.map((name) => [name, parameters[name]?.default]));
  const secrets = collectSecrets([
    { parameters: defaults, hidden: hiddenNames },
    ...template.steps.map((step) => ({ parameters: step.parameters ?? {}, hidden: step.hidden ?? [] })),
  ]);
  const { description } = template;
  return {
    ...template,
    ...(description === undefined ? {} : { description: maskText(description, secrets) }),
    ...(template.parameters === undefined
      ? {}
      : {
          parameters: Object.fromEntries(
            Object.entries(parameters).map(([name, parameter]) => [
              name,
              parameter.default === undefined
                ? parameter
                : {
                    ...parameter,
                    default:
                      parameter.hidden === true
                        ? HIDDEN
                        : maskParameters({ value: parameter.default }, [], secrets).value,
                  },
            ]),
          ),
        }),
    steps: template.steps.map((step) =>
      step.parameters === undefined
        ? step
        : { ...step, parameters: maskParameters(step.parameters, step.hidden ?? [], secrets) },
    ),
  };
}

/** Puts back what was masked when the template was shown. Throws JOB_TEMPLATE_INVALID where nothing is stored. */
function restoreHidden(template: JobTemplate, stored: JobTemplate | null): JobTemplate {
  const faults: { where: string; problem: string }[] = [];
  const shown = stored === null ? null : maskTemplate(stored);
  const restored: { readonly where: string; readonly text: string }[] = [];
  /** Of what is not hidden itself, but holds a hidden value somewhere. `seen`: as it was shown. */
  const restorePart = <T>(value: T, former: T | undefined, seen: T | undefined, where: string): T => {
    const text = JSON.stringify(value);
    const masked = JSON.stringify(seen);
    if (former === undefined || masked === JSON.stringify(former) || !text.includes(HIDDEN)) return value;
    if (text !== masked)
      faults.push({ where, problem: `was changed beside ${HIDDEN}, so nobody can say what that stands for` });
    restored.push({ where, text });
    return former;
  };
  const restore = (value: unknown, former: unknown, where: string): unknown => {
    if (value !== HIDDEN) return value;
    if (former === undefined)
      faults.push({ where, problem: `${HIDDEN} stands for a stored value, and none is stored here` });
    return former;
  };
  const parameters = Object.entries(template.parameters ?? {}).map(([name, parameter]) => {
    if (parameter.default === undefined) return [name, parameter] as const;
    const former = stored?.parameters?.[name]?.default;
    const where = `parameters.${name}.default`;
    const usual =
      parameter.hidden === true
        ? restore(parameter.default, former, where)
        : stored?.parameters?.[name]?.hidden === true
          ? parameter.default
          : restorePart(parameter.default, former, shown?.parameters?.[name]?.default, where);
    return [name, { ...parameter, default: usual }] as const;
  });
  const steps = template.steps.map((step) => {
    if (step.parameters === undefined) return step;
    const before = stored?.steps.find(({ name }) => name === step.name);
    const former = before?.parameters;
    const seen = shown?.steps.find(({ name }) => name === step.name)?.parameters;
    return {
      ...step,
      parameters: Object.fromEntries(
        Object.entries(step.parameters).map(([name, value]) => [
          name,
          step.hidden?.includes(name) === true
            ? restore(value, former?.[name], `${step.name}.parameters.${name}`)
            : before?.hidden?.includes(name) === true
              ? value
              : restorePart(value, former?.[name], seen?.[name], `${step.name}.parameters.${name}`),
        ]),
      ),
    };
  });
  const { description } = template;
  const definition = {
    ...template,
    ...(description === undefined
      ? {}
      : { description: restorePart(description, stored?.description, shown?.description, "description") }),
    steps,
    ...(template.parameters === undefined ? {} : { parameters: Object.fromEntries(parameters) }),
  };
  // Whoever takes away what hides a value must not get to see it elsewhere.
  const after = JSON.stringify(maskTemplate(definition));
  for (const { where, text } of restored)
    if (faults.length === 0 && !after.includes(text))
      faults.push({ where, problem: `holds ${HIDDEN}, and nothing hides that any more` });
  if (faults.length > 0)
    throw new LockstepError("JOB_TEMPLATE_INVALID", "the template lacks hidden values", {
      faults,
      hint: "Nothing was stored. Write the values themselves.",
    });
  return definition;
}

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { basename, join, resolve } from "node:path";
import { describeMachine, toTable } from "./harness.ts";
import { formatFinding, type Report } from "./report.ts";

/**
 * `npm run bench [-- QUESTION...]`: runs the benchmarks, prints their tables, and writes docs/benchmarks.md from
 * what was measured last for each question. Nothing in that file is written by hand.
 */
const ROOT = resolve(import.meta.dirname, "..");
const RESULTS = join(ROOT, "bench/results");

function version(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8" }).split("\n")[0]?.trim() ?? "";
}

const questions = readdirSync(join(import.meta.dirname, "questions"))
  .filter((name) => name.endsWith(".ts"))
  .map((name) => basename(name, ".ts"))
  .sort();
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !questions.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`no such benchmark: ${unknown.join(", ")}; there are ${questions.join(", ")}\n`);
  process.exit(2);
}

execFileSync(process.execPath, [join(ROOT, "scripts/run.mjs"), "build"], {
  stdio: ["ignore", "ignore", "inherit"],
});
mkdirSync(RESULTS, { recursive: true });
const machine = describeMachine();
const peers = `${version("rsync", "--version")}; ${version("tar", "--version")}; ${version("git", "--version")}; ${version("openssl", "version")}`;
for (const question of wanted.length > 0 ? wanted : questions) {
  process.stderr.write(`${question}\n`);
  const { run } = (await import(join(import.meta.dirname, "questions", `${question}.ts`))) as {
    run(): Promise<Report>;
  };
  const [load = 0] = loadavg();
  const report = await run();
  const section = [
    `## ${report.title}`,
    "",
    report.text,
    "",
    ...(report.measured.length === 0 ? [] : [toTable(report.measured), ""]),
    "| figure | found | goal | |",
    "| --- | --- | --- | --- |",
    ...report.findings.map(formatFinding),
    "",
    `Measured ${new Date().toISOString().slice(0, 10)} on ${machine}, load average ${load.toFixed(1)} before; ${peers}.`,
    "",
  ].join("\n");
  process.stdout.write(`${section}\n`);
  writeFileSync(join(RESULTS, `${question}.md`), section);
}

const sections = questions.flatMap((question) => {
  try {
    return [readFileSync(join(RESULTS, `${question}.md`), "utf8")];
  } catch {
    return [];
  }
});
writeFileSync(
  join(ROOT, "docs/benchmarks.md"),
  `# Benchmarks

Written by \`npm run bench\`; each table is one run of one command, the contestants in turn on the same machine. Only the ratios mean anything elsewhere. Hub, database, updater and peers share the machine's cores; where the load average says that others worked there too, the range tells how far to trust a table.

${sections.join("\n")}`,
);

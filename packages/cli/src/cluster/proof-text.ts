import type { Inequality, LeaseProof, LeaseTimes, TermSlack } from "@lockstep/core";
import type { Output } from "../screen/output.ts";
import { printTable } from "../screen/table.ts";

const SYMBOLS: Readonly<Record<keyof LeaseTimes, readonly [symbol: string, meaning: string]>> = {
  trustMs: ["V", "how long the owner trusts one renewal"],
  waitMs: ["T", "how long the others wait"],
  renewMs: ["R", "from one renewal to the next"],
  callMs: ["C", "after this a call counts as unanswered"],
  guardDelayMs: ["G", "how late the guard may be scheduled"],
  stopMs: ["S", "from the kill until service and address are gone"],
  clockError: ["ρ", "how far the rate of a clock may be off"],
};

const FORMULAS = {
  safety: ["V(1+ρ) + G + S ≤ T(1−ρ)", "never two owners"],
  liveness: ["R + 2C ≤ V", "one slow call is no outage"],
} as const;

/**
 * Prints both inequalities with what is left of each, and the slack of each term: how far it may move, all others as
 * they are. For a pipe one term a line: inequality, term, value, bound, limit, slack.
 */
export function printProof(output: Output, proof: LeaseProof): void {
  for (const name of ["safety", "liveness"] as const) {
    const inequality = proof[name];
    if (!output.data.interactive) {
      for (const term of inequality.terms) output.line([name, term.term, ...termCells(term)].join("\t"));
      continue;
    }
    tellInequality(output, name, inequality);
  }
}

function tellInequality(output: Output, name: "safety" | "liveness", inequality: Inequality): void {
  const [formula, meaning] = FORMULAS[name];
  const { holds, leftMs, rightMs, slackMs } = inequality;
  const verdict = holds
    ? output.paintData("green", `holds, ${figure(slackMs)} ms left`)
    : output.paintData("red", `broken by ${figure(-slackMs)} ms`);
  output.line(`${output.paintData("bold", name)}: ${meaning}`);
  output.line(`${formula}   ${figure(leftMs)} ≤ ${figure(rightMs)} ms   ${verdict}`);
  printTable(
    output,
    [
      { title: "" },
      { title: "term" },
      { title: "value", align: "right" },
      { title: "limit", align: "right" },
      { title: "slack", align: "right" },
      { title: "meaning", shrinks: true },
    ],
    inequality.terms.map((term) => {
      const [symbol, meaning] = SYMBOLS[term.term];
      const [value = "", bound = "", limit = "", slack = ""] = termCells(term);
      return [symbol, term.term, value, `${bound === "at-most" ? "≤" : "≥"} ${limit}`, slack, meaning];
    }),
    (cell, column) => (column === 4 && cell.trim().startsWith("-") ? output.paintData("red", cell) : cell),
  );
  output.line();
}

function termCells({ term, value, bound, limit, slack }: TermSlack): string[] {
  const format = term === "clockError" ? fraction : figure;
  return [format(value), bound, format(limit), format(slack)];
}

/** Milliseconds to a tenth; a whole number without one. */
const figure = (ms: number) => String(Math.round(ms * 10) / 10);
const fraction = (value: number) => String(Math.round(value * 1e4) / 1e4);

/** What is wrong with times that may not be used, one line for each inequality that is broken. */
export function proofFaults({ safety, liveness, faults }: LeaseProof): { where: string; problem: string }[] {
  const values = faults.map((term) => ({ where: term, problem: "is no sensible value" }));
  if (values.length > 0) return values;
  return (
    [
      ["safety", safety],
      ["liveness", liveness],
    ] as const
  )
    .filter(([, { holds }]) => !holds)
    .map(([name, { leftMs, rightMs, terms }]) => ({
      where: FORMULAS[name][0],
      problem: `${figure(leftMs)} ms is more than ${figure(rightMs)} ms; any one of these mends it: ${terms
        // A negative time, or a clock error below zero, is no way out.
        .filter(({ limit }) => limit > 0)
        .map(
          ({ term, limit, bound }) =>
            `${term} ${bound === "at-most" ? "≤" : "≥"} ${term === "clockError" ? fraction(limit) : figure(limit)}`,
        )
        .join(", ")}`,
    }));
}

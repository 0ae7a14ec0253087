import { counted, formatDuration, formatUtc } from "../screen/format.ts";
import { type DrillReport, type DrillRound, LOSS_WORDS, outageWords } from "./drill-report.ts";

/** The report of a drill as one page that needs nothing else: no script, no font, no picture from elsewhere. */
export function drillHtml(report: DrillReport): string {
  const { virtualServer, cluster, loss, rounds, predicted, passed } = report;
  const move = predicted.moveOutage;
  const facts = [
    ["Cluster", cluster],
    ["Begun", formatUtc(report.at)],
    ["By", report.by],
    ["Lost for", report.lastsMs === 0 ? "one kill" : formatDuration(report.lastsMs)],
    ["Asked", report.probe ?? "nothing"],
    ["Predicted to go to", predicted.to ?? "nowhere"],
    [
      "A planned move takes",
      move.ms === null ? `not known: ${move.basis}` : `${formatDuration(move.ms)}, ${move.basis}`,
    ],
  ] as const;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Drill of ${markup(virtualServer)}: ${passed ? "passed" : "failed"}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<header>
<p class="badge ${passed ? "ok" : "bad"}">${passed ? "passed" : "failed"}${report.isInterrupted ? ", interrupted" : ""}</p>
<h1>Drill of ${markup(virtualServer)}</h1>
<p class="lead">${markup(LOSS_WORDS[loss])}, ${rounds.length} ${rounds.length === 1 ? "time" : "times"}</p>
</header>
<dl>${facts.map(([name, value]) => `<div><dt>${markup(name)}</dt><dd>${markup(value)}</dd></div>`).join("")}</dl>
${rounds.map(roundHtml).join("\n")}
</main>
</body>
</html>
`;
}

function roundHtml(round: DrillRound): string {
  const { number, victim, recoveredOn, outage, reportedMs, wayBack, verdicts, timeline, tokens } = round;
  const rows = verdicts.map(
    ({ name, ok, detail }) =>
      `<tr><td class="${ok ? "ok" : "bad"}">${ok ? "ok" : "fail"}</td><th scope="row">${markup(name)}</th><td>${markup(detail)}</td></tr>`,
  );
  const steps = timeline
    .filter(({ what }) => what !== "saw")
    .map(
      ({ ms, node, token, what, detail }) =>
        `<tr><td class="number">${Math.round(ms)}</td><td>${markup(node)}${token === null ? "" : ` <span class="dim">#${token}</span>`}</td><th scope="row">${markup(what)}</th><td>${markup(detail)}</td></tr>`,
    );
  const back =
    wayBack === null
      ? ""
      : `, back to ${markup(wayBack.to)} by a planned move: ${markup(outageWords(wayBack.outage, null))}`;
  return `<section>
<h2>Round ${number}</h2>
<p class="lead"><strong>${markup(outageWords(outage, reportedMs))}</strong>${back}</p>
<p class="dim">${markup(victim)} with token ${tokens.before} &rarr; ${markup(recoveredOn ?? "not online again")}${tokens.after === null ? "" : ` with token ${tokens.after}`}</p>
${timelineSvg(round)}
<table class="verdicts"><tbody>${rows.join("")}</tbody></table>
<details><summary>${counted(steps.length, "step")}, as the nodes wrote them down</summary>
<table><thead><tr><th>ms</th><th>node</th><th>what</th><th>detail</th></tr></thead><tbody>${steps.join("")}</tbody></table>
</details>
</section>`;
}

const LEFT = 110;
const WIDTH = 860;
const LANE = 34;

/** Who owned when, when the client had no answer, and what happened, over one axis of time. */
function timelineSvg({ sights, timeline, outage, victim }: DrillRound): string {
  const nodes = [...new Set([victim, ...sights.flatMap(({ owner }) => owner ?? [])])];
  const lost = outage?.from ?? null;
  const times = [...sights.map(({ at }) => at), ...timeline.map(({ ms }) => ms), 1];
  const [from, to] = [Math.min(0, ...times), Math.max(...times) * 1.02];
  const x = (ms: number) =>
    LEFT + ((Math.min(Math.max(ms, from), to) - from) / (to - from)) * (WIDTH - LEFT - 10);
  const bars = sights.flatMap(({ at, owner, token }, index) => {
    if (owner === null) return [];
    const end = sights[index + 1]?.at ?? to;
    const y = 12 + nodes.indexOf(owner) * LANE;
    const width = Math.max(2, x(end) - x(at));
    return [
      `<rect class="own" x="${x(at).toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="18" rx="3"><title>${markup(owner)} owns with token ${token}</title></rect>`,
      width > 40 ? `<text class="in" x="${(x(at) + 6).toFixed(1)}" y="${y + 13}">#${token}</text>` : "",
    ];
  });
  const clientY = 12 + nodes.length * LANE;
  const client =
    outage === null
      ? []
      : [
          `<rect class="up" x="${LEFT}" y="${clientY}" width="${WIDTH - LEFT - 10}" height="18" rx="3"/>`,
          ...(lost === null || outage.to === null
            ? []
            : [
                `<rect class="gap" x="${x(lost).toFixed(1)}" y="${clientY}" width="${Math.max(2, x(outage.to) - x(lost)).toFixed(1)}" height="18"><title>${Math.round(outage.ms)} ms without an answer</title></rect>`,
              ]),
        ];
  const bottom = clientY + (outage === null ? 0 : LANE);
  const stepMs = niceStep((to - from) / 6);
  const ticks: string[] = [];
  for (let ms = 0; ms <= to; ms += stepMs)
    ticks.push(
      `<line class="tick" x1="${x(ms).toFixed(1)}" y1="4" x2="${x(ms).toFixed(1)}" y2="${bottom}"/><text class="axis" x="${x(ms).toFixed(1)}" y="${bottom + 14}">${ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`}</text>`,
    );
  const marks = timeline
    .filter(({ what, node }) => MARKED.has(what) && nodes.includes(node))
    .map(
      ({ ms, node, what, detail }) =>
        `<circle class="mark ${what === "drill" || what === "resource-failed" || what === "lost" ? "bad" : ""}" cx="${x(ms).toFixed(1)}" cy="${12 + nodes.indexOf(node) * LANE + 9}" r="4"><title>${markup(`${Math.round(ms)} ms: ${what} ${detail}`)}</title></circle>`,
    );
  const names = nodes.map(
    (node, index) => `<text class="name" x="0" y="${12 + index * LANE + 14}">${markup(node)}</text>`,
  );
  if (outage !== null) names.push(`<text class="name" x="0" y="${clientY + 14}">client</text>`);
  return `<svg viewBox="0 0 ${WIDTH} ${bottom + 22}" role="img" aria-label="Who owned when, and when the client had no answer">${[...ticks, ...names, ...bars, ...client, ...marks].join("")}</svg>`;
}

const MARKED = new Set(["drill", "took", "online", "lost", "resource-failed", "gave-back", "offline-begins"]);

function niceStep(ms: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(ms, 1)));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= ms) ?? 10 * power;
}

const ESCAPED: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

const markup = (text: string): string => text.replaceAll(/[&<>"']/g, (found) => ESCAPED[found] ?? found);

const STYLE = `
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--ink:#1a2230;--dim:#5d6878;--line:#dfe3ea;--ok:#137a3f;--bad:#b3261e;--own:#3563c9;--up:#9fd4b4}
@media (prefers-color-scheme:dark){:root{--back:#10151f;--card:#18202d;--ink:#e6eaf2;--dim:#9aa6b8;--line:#2b3646;--ok:#57d98d;--bad:#ff8a80;--own:#5b8def;--up:#2c6b47}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px}h1{margin:4px 0;font-size:28px}h2{margin:0 0 4px;font-size:18px}
.badge{display:inline-block;margin:0;padding:2px 12px;border-radius:99px;border:1px solid;font-weight:600}.ok{color:var(--ok)}.bad{color:var(--bad)}
.lead{margin:0 0 8px}.dim{color:var(--dim)}p.dim{margin:0 0 12px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:12px;margin:20px 0}dl div,section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
dt{color:var(--dim);font-size:13px}dd{margin:0;overflow-wrap:anywhere}section{margin:16px 0;padding:20px}
svg{display:block;width:100%;height:auto;margin:12px 0}.own{fill:var(--own)}.up{fill:var(--up)}.gap,.mark.bad{fill:var(--bad)}.mark{fill:var(--ink);stroke:var(--card);stroke-width:1.5}
.tick{stroke:var(--line)}.axis,.name{fill:var(--dim);font:12px system-ui,sans-serif}.axis{text-anchor:middle}.in{fill:#fff;font:11px system-ui,sans-serif}
table{width:100%;border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:5px 10px 5px 0;border-top:1px solid var(--line);overflow-wrap:anywhere}th{font-weight:600}
.number{text-align:right;font-variant-numeric:tabular-nums}summary{cursor:pointer;margin:12px 0 4px;color:var(--dim)}
`;

/** What a command shows on a colour terminal, as a picture: SGR colours become spans of an SVG text. */
const FOREGROUND: Readonly<Record<number, string>> = {
  30: "#64748b",
  31: "#f87171",
  32: "#4ade80",
  33: "#facc15",
  34: "#60a5fa",
  35: "#c084fc",
  36: "#22d3ee",
  37: "#e2e8f0",
  90: "#94a3b8",
};
const PLAIN = "#e2e8f0";
const LINE = 19;
const CHARACTER = 8.43;
const EDGE = 20;

const escapeText = (text: string) =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    // Renderers of SVG collapse ordinary spaces.
    .replaceAll(" ", "\u00a0");

/** Makes the picture. `command` is shown as what was typed. */
export function terminalPicture(command: string, output: string, title: string): string {
  const lines = [`$ ${command}`, ...output.replaceAll("\r", "").trimEnd().split("\n")];
  const bare = (line: string) =>
    line
      .split("\u001b[")
      .map((piece, index) => (index === 0 ? piece : piece.slice(piece.search(/[A-Za-z]/) + 1)))
      .join("");
  const width = Math.ceil(Math.max(...lines.map((line) => bare(line).length)) * CHARACTER + 2 * EDGE);
  const height = lines.length * LINE + 2 * EDGE;
  const rows = lines.map(
    (line, index) => `<text x="${EDGE}" y="${EDGE + (index + 1) * LINE - 5}">${spans(line)}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escapeText(title)}">
<title>${escapeText(title)}</title>
<rect width="${width}" height="${height}" rx="10" fill="#0f172a"/>
<g font-family="ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', monospace" font-size="14" fill="${PLAIN}" >
${rows.join("\n")}
</g>
</svg>
`;
}

function spans(line: string): string {
  let color = PLAIN;
  let bold = false;
  let dim = false;
  const parts: string[] = [];
  for (const piece of line.split("\u001b[")) {
    const text = parts.length === 0 && !line.startsWith("\u001b[") ? piece : afterSequence(piece);
    if (text === "") {
      parts.push("");
      continue;
    }
    const style = `${color === PLAIN ? "" : ` fill="${color}"`}${bold ? ' font-weight="700"' : ""}${dim ? ' opacity="0.65"' : ""}`;
    parts.push(style === "" ? escapeText(text) : `<tspan${style}>${escapeText(text)}</tspan>`);
  }
  return parts.join("");

  function afterSequence(piece: string): string {
    const end = piece.search(/[A-Za-z]/);
    if (end === -1) return piece;
    if (piece[end] === "m")
      for (const code of piece.slice(0, end).split(";").map(Number)) {
        if (code === 0) [color, bold, dim] = [PLAIN, false, false];
        else if (code === 1) bold = true;
        else if (code === 2) dim = true;
        else if (code === 22) [bold, dim] = [false, false];
        else if (code === 39) color = PLAIN;
        else color = FOREGROUND[code] ?? color;
      }
    return piece.slice(end + 1);
  }
}

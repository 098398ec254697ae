// Drawings. SVG for strips, bars, whiskers and histograms; uPlot for lines over time.
import { html, useEffect, useRef } from "/vendor/htm-preact.js";
import { dot, known } from "/format.js";

const STEPS = [0.02, 0.1, 0.25, 1, 3];
export const driftClass = (psi) =>
  known(psi) ? `d${STEPS.filter((step) => psi > step).length}` : "hatch";

export const Hatching = () => html`<svg width="0" height="0" aria-hidden="true" class="hidden">
  <defs>
    <pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
      <line x1="0" y1="0" x2="0" y2="5" class="hatch-line" />
    </pattern>
  </defs>
</svg>`;

const ICONS = {
  ok: html`<circle cx="9" cy="9" r="7" /><path d="M5.800 9.200l2.200 2.200 4.200-4.600" />`,
  digest: html`<circle cx="9" cy="9" r="7" /><path d="M9 8.200v4M9 5.600v.1" />`,
  ticket: html`<path d="M9 2.500l7 12.500H2z" /><path d="M9 7v4M9 12.900v.1" />`,
  page: html`<path d="M6 2h6l4 4v6l-4 4H6l-4-4V6z" class="filled" /><path d="M6.500 6.500l5 5m0-5l-5 5" class="paper" />`,
  unknown: html`<circle cx="9" cy="9" r="7" stroke-dasharray="2.500 2.500" />`,
};
export const Icon = ({ level }) =>
  html`<svg class="icon ${level}" viewBox="0 0 18 18" role="img" aria-label=${level}>${ICONS[level]}</svg>`;

export function Sparkline({ points, area, limit, label }) {
  const top = Math.max(limit ?? 0, ...points.filter(known), 1e-9) * 1.1;
  const x = (i) => (i / Math.max(points.length - 1, 1)) * 128 + 1;
  const y = (value) => 34 - (value / top) * 32;
  const there = points.map((value, i) => [i, value]).filter(([, value]) => known(value));
  const line = there.map(([i, value]) => `${x(i)},${y(value)}`).join(" ");
  const last = there.at(-1);
  return html`<svg class="sparkline" viewBox="0 0 134 36" role="img" aria-label=${label}>
    ${area && there.length > 1 && html`<polygon points=${`${x(there[0][0])},34 ${line} ${x(last[0])},34`} class="area" />`}
    ${limit && html`<line x1="1" x2="129" y1=${y(limit)} y2=${y(limit)} class="limit" />`}
    <polyline points=${line} class="stroke" />
    ${last && html`<circle cx=${x(last[0])} cy=${y(last[1])} r="2" class="dot" />`}
  </svg>`;
}

export const Strip = ({ rows, label, height = 11 }) => {
  const width = Math.max(...rows.map((row) => row.psi.length), 1);
  return html`<svg class="strip" viewBox="0 0 ${width} ${rows.length * height}" preserveAspectRatio="none" role="img" aria-label=${label}
    style="height:${rows.length * (height + 1)}px">
    ${rows.map((row, r) =>
      row.psi.map(
        (psi, i) =>
          html`<rect x=${i + 0.04} y=${r * height + 0.5} width=".92" height=${height - 1} class=${driftClass(psi)} />`,
      ),
    )}
  </svg>`;
};

export function Whiskers({ quality }) {
  const [low, high] = quality.axis;
  const x = (value) => Math.min(Math.max((value - low) / (high - low), 0), 1) * 196;
  const whisker = (estimate, y, kind) =>
    estimate &&
    html`<g class=${kind}>
      <line x1=${x(estimate.low)} x2=${x(estimate.high)} y1=${y} y2=${y} />
      <circle cx=${x(estimate.value)} cy=${y} r="3.500" />
    </g>`;
  return html`<svg class="whiskers" viewBox="0 0 196 54" role="img" aria-label="AUC of both versions against the reference">
    ${known(quality.harm) && html`<rect x="0" y="0" width=${x(quality.harm)} height="38" class="harm" />`}
    ${known(quality.reference) && html`<line x1=${x(quality.reference)} x2=${x(quality.reference)} y1="0" y2="38" class="limit" />`}
    ${whisker(quality.champion, 11, "champion")} ${whisker(quality.shadow, 26, "challenger")}
    <line x1="0" x2="196" y1="38" y2="38" class="hair" />
    <text x="0" y="50">${dot(low, 2)}</text><text x="98" y="50" text-anchor="middle">reference ${dot(quality.reference)}</text>
    <text x="196" y="50" text-anchor="end">${dot(high, 2)}</text>
  </svg>`;
}

export function Bars({ values, height, label, hover }) {
  const top = Math.max(...values.filter(known), 1e-9);
  return html`<svg class="bars" viewBox="0 0 ${values.length || 1} ${height}" preserveAspectRatio="none" style="height:${height}px" role="img" aria-label=${label}>
    ${values.map((value, i) =>
      known(value)
        ? html`<rect x=${i + 0.08} width=".84" y=${height - (value / top) * height} height=${(value / top) * height} class=${i === hover ? "bar chosen" : "bar"} />`
        : html`<rect x=${i} width="1" y="0" height=${height} class="hatch" />`,
    )}
  </svg>`;
}

export function Histogram({ data }) {
  const n = data.bins.length;
  const top = Math.max(...data.reference, ...data.current, 1e-9);
  const w = 600 / n;
  const y = (share) => 120 - (share / top) * 112;
  const outline = data.current.map((share, i) => `${i ? "L" : "M"}${i * w},${y(share)}H${(i + 1) * w}`).join("");
  return html`<svg class="histogram" viewBox="0 0 600 138" role="img" data-testid="feature-histogram"
      aria-label="${data.feature}: reference in grey, current outlined; PSI ${dot(data.psi, 2)}">
    ${data.reference.map((share, i) => html`<rect x=${i * w + 0.5} width=${w - 1} y=${y(share)} height=${120 - y(share)} class="bar" />`)}
    <path d=${outline} class="stroke" />
    <line x1="0" x2="600" y1="120" y2="120" class="hair" />
    ${data.bins.map((bin, i) => i % Math.ceil(n / 10) === 0 && html`<text x=${(i + 0.5) * w} y="133" text-anchor="middle">${bin}</text>`)}
  </svg>`;
}

// `series`: {values, kind: champion | challenger | seen, low, high}; all parallel, null is a gap.
export function Lines({ series, height, range, log, marks = [], label }) {
  const host = useRef(null);
  const n = series[0]?.values.length ?? 0;
  useEffect(() => {
    if (!host.current || !n) return undefined;
    const plot = new window.uPlot(options(), data(), host.current);
    const resize = new ResizeObserver(() => plot.setSize({ width: host.current.clientWidth, height }));
    resize.observe(host.current);
    return () => (resize.disconnect(), plot.destroy());
  }, [JSON.stringify([series, range, marks, document.documentElement.dataset.theme])]);

  const data = () => [
    Array.from({ length: n }, (_, i) => i + 0.5),
    ...series.flatMap((s) => (s.low ? [s.low, s.high, s.values] : [s.values])),
  ];
  function options() {
    const style = getComputedStyle(document.documentElement);
    const token = (name) => style.getPropertyValue(`--${name}`).trim();
    const stroke = { champion: token("champion"), challenger: token("challenger"), seen: token("ink3"), pale: token("ink3") };
    const lines = [{}];
    const bands = [];
    for (const s of series) {
      if (s.low) {
        const at = lines.length;
        lines.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
        bands.push({ series: [at + 1, at], fill: `${stroke[s.kind]}22` });
      }
      lines.push({ stroke: stroke[s.kind], width: s.kind === "pale" ? 1 : 1.5, dash: s.kind === "challenger" ? [4, 3] : undefined, points: { show: false } });
    }
    return {
      width: host.current.clientWidth,
      height,
      padding: [4, 0, 4, 0],
      legend: { show: false },
      cursor: { show: false },
      axes: [{ show: false }, { show: false }],
      scales: { x: { time: false, range: [0, n] }, y: { range: range ?? fitted(series), distr: log ? 3 : 1 } },
      series: lines,
      bands,
      hooks: { drawClear: [(u) => marks.forEach((mark) => drawMark(u, mark, token))] },
    };
  }
  return html`<div class="lines" ref=${host} style="height:${height}px" role="img" aria-label=${label}></div>`;
}

function fitted(series) {
  const values = series.flatMap((s) => [...(s.low ?? []), ...(s.high ?? []), ...s.values]).filter(known);
  const low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low) * 0.1 || 0.05;
  return [low - pad, high + pad];
}

function drawMark(u, mark, token) {
  const y = u.valToPos(mark.at, "y", true);
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  if (mark.kind === "harm") {
    u.ctx.fillStyle = `${token("fail")}12`;
    u.ctx.fillRect(left, y, width, Math.max(top + height - y, 0));
  }
  u.ctx.strokeStyle = mark.kind === "harm" ? `${token("fail")}88` : token("ink3");
  u.ctx.setLineDash(mark.kind === "harm" ? [] : [2, 3]);
  u.ctx.beginPath();
  u.ctx.moveTo(left, y);
  u.ctx.lineTo(left + width, y);
  u.ctx.stroke();
  u.ctx.setLineDash([]);
  u.ctx.fillStyle = token("ink3");
  u.ctx.font = `${11 * devicePixelRatio}px Inter, sans-serif`;
  u.ctx.fillText(mark.text, left + 4 * devicePixelRatio, y + (mark.kind === "harm" ? 13 : -4) * devicePixelRatio);
  u.ctx.restore();
}

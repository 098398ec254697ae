// Drawings. SVG for strips, bars, whiskers and histograms; uPlot for lines over time.
import { html, useEffect, useMemo, useRef, useState } from "/vendor/htm-preact.js";
import { dot, known } from "/format.js";

const STEPS = [0.02, 0.1, 0.25, 1, 3];
export const driftClass = (psi) =>
  known(psi) ? `d${STEPS.filter((step) => psi > step).length}` : "hatch";

const ICONS = {
  ok: html`<circle cx="9" cy="9" r="7" /><path d="M5.800 9.200l2.200 2.200 4.200-4.600" />`,
  digest: html`<circle cx="9" cy="9" r="7" /><path d="M9 8.200v4M9 5.600v.1" />`,
  ticket: html`<path d="M9 2.500l7 12.500H2z" /><path d="M9 7v4M9 12.900v.1" />`,
  page: html`<path d="M6 2h6l4 4v6l-4 4H6l-4-4V6z" class="filled" /><path d="M6.500 6.500l5 5m0-5l-5 5" class="paper" />`,
  unknown: html`<circle cx="9" cy="9" r="7" stroke-dasharray="2.500 2.500" />`,
  insufficient: html`<circle cx="9" cy="9" r="6.500" />`,
  quiet: html`<circle cx="9" cy="9" r="7" /><path d="M9 5v4l2.500 2" />`,
};
ICONS.pass = ICONS.ok;
ICONS.fail = ICONS.page;
ICONS.tells = ICONS.digest;
export const Icon = ({ level, label }) =>
  html`<svg class="icon level-${level}" viewBox="0 0 18 18" role="img" aria-label=${label ?? level}>${ICONS[level]}</svg>`;

// [kind, from, length] of equal neighbours.
export function runs(kinds) {
  const found = [];
  kinds.forEach((kind, i) => {
    if (found.length && found.at(-1)[0] === kind) found.at(-1)[2] += 1;
    else found.push([kind, i, 1]);
  });
  return found;
}

// Unknown is drawn. In HTML, because a pattern in a stretched SVG would be stretched too.
export const Gaps = ({ values }) =>
  runs(values.map(known))
    .filter(([there]) => !there)
    .map(([, from, length]) => html`<i class="hatched" style="left:${(from / values.length) * 100}%;width:${(length / values.length) * 100}%"></i>`);

export function Sparkline({ points, area, limit, label }) {
  const top = Math.max(limit ?? 0, ...points.filter(known), 1e-9) * 1.1;
  const x = (i) => (i / Math.max(points.length - 1, 1)) * 128 + 1;
  const y = (value) => 36 - (value / top) * 34;
  const parts = runs(points.map(known)).filter(([there]) => there);
  const line = ([, from, length]) =>
    points.slice(from, from + length).map((value, i) => `${x(from + i)},${y(value)}`).join(" ");
  const last = points.findLastIndex(known);
  return html`<svg class="sparkline" viewBox="0 0 134 38" role="img" aria-label=${label}>
    ${area && parts.map((p) => html`<polygon points=${`${x(p[1])},36 ${line(p)} ${x(p[1] + p[2] - 1)},36`} class="area" />`)}
    <line x1="1" x2="129" y1="36" y2="36" class="hair" />
    ${limit && html`<line x1="1" x2="129" y1=${y(limit)} y2=${y(limit)} class="limit" />`}
    ${parts.map((p) => html`<polyline points=${line(p)} class="stroke" />`)}
    ${last >= 0 && html`<circle cx=${x(last)} cy=${y(points[last])} r="2" class="dot" />`}
  </svg>`;
}

export const Strip = ({ rows, label }) => html`<div class="strip" role="img" aria-label=${label}>
  ${rows.map((row) => html`<${Cells} psi=${row.psi} />`)}
</div>`;

// One row of the heat strip. Equal neighbours are one rectangle where there are too many to tell apart.
export function Cells({ psi, label }) {
  const n = psi.length || 1;
  const drawn = useMemo(() => {
    const kinds = psi.map(driftClass);
    const cells = n > 130 ? runs(kinds) : kinds.map((kind, i) => [kind, i, 1]);
    return cells.filter(([kind]) => kind !== "hatch");
  }, [psi]);
  return html`<div class="cells"><${Gaps} values=${psi} />
    <svg viewBox="0 0 ${n} 10" preserveAspectRatio="none" role=${label && "img"} aria-label=${label} aria-hidden=${!label}>
      ${drawn.map(([kind, from, length]) => html`<rect x=${from} y="0" width=${length} height="10" class="${kind} ${n > 130 ? "" : "cell"}" />`)}
    </svg></div>`;
}

const share = (value, [low, high]) => Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
export const across = (value, axis) => `${share(value, axis) * 100}%`;

export const Whisker = ({ estimate, axis, y, kind }) =>
  estimate &&
  html`<g class=${kind}>
    <line x1=${across(estimate.low, axis)} x2=${across(estimate.high, axis)} y1=${y} y2=${y} />
    <circle cx=${across(estimate.value, axis)} cy=${y} r="3.5" />
  </g>`;

export function Whiskers({ quality, label }) {
  const { axis, harm, reference } = quality;
  return html`<svg class="whiskers" width="100%" height="54" role="img" aria-label=${label}>
    ${known(harm) && html`<rect x="0" y="0" width=${across(harm, axis)} height="38" class="harm" />`}
    ${known(reference) && html`<line x1=${across(reference, axis)} x2=${across(reference, axis)} y1="0" y2="38" class="limit" />`}
    <${Whisker} estimate=${quality.champion} axis=${axis} y="11" kind="champion" />
    <${Whisker} estimate=${quality.shadow} axis=${axis} y="26" kind="challenger" />
    <line x1="0" x2="100%" y1="38" y2="38" class="hair" />
    <text x="0" y="50">${dot(axis[0], 2)}</text>
    ${known(reference) && html`<text x="${Math.min(Math.max(share(reference, axis), 0.25), 0.75) * 100}%" y="50" text-anchor="middle">reference</text>`}
    <text x="100%" y="50" text-anchor="end">${dot(axis[1], 2)}</text>
  </svg>`;
}

// Bars from zero. From `unripe` on they are hatched: still filling. `faults` stand in red at the foot.
export function Bars({ values, faults = [], height, hover, unripe = Infinity, top, label }) {
  const n = values.length || 1;
  const up = (value) => (Math.min(value / top, 1) || 0) * height;
  const path = (some) =>
    some.map((value, i) => (value > 0 ? `M${i + 0.08},${height}v${-up(value)}h.84v${up(value)}z` : "")).join("");
  const bars = useMemo(() => path(values.map((value, i) => (i < unripe ? value : 0))), [values, top]);
  const bad = useMemo(() => path(faults), [faults, top]);
  const place = (i, value) => `left:${(i / n) * 100}%;width:${100 / n}%;height:${up(value)}px`;
  return html`<div class="bars" style="height:${height}px" role="img" aria-label=${label}>
    <${Gaps} values=${values} />
    <svg viewBox="0 0 ${n} ${height}" preserveAspectRatio="none"><path d=${bars} class="bar" /><path d=${bad} class="fault" /></svg>
    ${values.slice(unripe).map((value, i) => value > 0 && html`<i class="hatched foot" style=${place(unripe + i, value)}></i>`)}
    ${known(hover) && values[hover] > 0 && html`<i class="chosen" style=${place(hover, values[hover])}></i>`}
  </div>`;
}

function useWidth() {
  const host = useRef(null);
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const resize = new ResizeObserver(() => host.current && setWidth(host.current.clientWidth || 600));
    resize.observe(host.current);
    return () => resize.disconnect();
  }, []);
  return [host, width];
}

export function Histogram({ data }) {
  const [host, width] = useWidth();
  const n = data.bins.length;
  const top = Math.max(...data.reference, ...data.current, 1e-9);
  const y = (value) => 120 - (value / top) * 112;
  const outline = data.current.map((value, i) => `${i ? "L" : "M"}${i},${y(value)}H${i + 1}`).join("");
  const wide = Math.max(...data.bins.map((bin) => bin.length)) * 6.5 + 8;
  const every = Math.ceil((wide * n) / width);
  return html`<div ref=${host}><svg class="histogram" width="100%" height="140" role="img" data-testid="feature-histogram"
      aria-label="${data.feature}: shares by value, reference in grey and these days outlined; PSI ${dot(data.psi, 2)}.">
    <svg viewBox="0 0 ${n} 120" width="100%" height="120" preserveAspectRatio="none">
      ${data.reference.map((value, i) => html`<rect x=${i + 0.03} width=".94" y=${y(value)} height=${120 - y(value)} class="bar" />`)}
      <path d="M0,120L0,${y(data.current[0] ?? 0)}${outline.replace(/^M/, "L")}V120" class="stroke" />
    </svg>
    <line x1="0" x2="100%" y1="120" y2="120" class="hair" />
    ${data.bins.map((bin, i) => i % every === 0 && html`<text x="${((i + 0.5) / n) * 100}%" y="135" text-anchor="middle">${bin}</text>`)}
  </svg></div>`;
}

export const rise = (value, [low, high], log) =>
  log ? share(Math.log(value), [Math.log(low), Math.log(high)]) : share(value, [low, high]);

export const Ticks = ({ ticks, range, log, text }) =>
  ticks.map((value) => html`<span class="tick" aria-hidden="true" style="top:${(1 - rise(value, range, log)) * 100}%">${text(value)}</span>`);

// At most four round numbers inside a range.
export function round([low, high]) {
  const rough = (high - low) / 3;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((by) => by * ten).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => (first + i) * step);
}

// `series`: {values, kind: champion | challenger | seen | pale, low, high}; all parallel, null is a gap.
// The first one's gaps are hatched. `fill`: two series between which the gap is shaded. `x`: rising
// numbers, drawn on a log axis, where the values are not one a day.
export function Lines({ of, series, height, range, log, ticks = [], text = String, marks = [], fill, label, x }) {
  const host = useRef(null);
  const n = series[0].values.length;
  const theme = document.documentElement.dataset.theme;
  useEffect(() => {
    const box = host.current;
    const plot = new window.uPlot(options({ series, range, log, ticks, marks, fill, n, height, x, width: box.clientWidth }), columns(series, n, log, fill, x), box);
    const resize = new ResizeObserver(() => box.clientWidth && plot.setSize({ width: box.clientWidth, height }));
    resize.observe(box);
    return () => (resize.disconnect(), plot.destroy());
  }, [of, theme, height]);
  return html`<div class="framed">
    <${Gaps} values=${series[0].values} />
    <div class="lines" ref=${host} style="height:${height}px" role="img" aria-label=${label}></div>
    <${Ticks} ticks=${ticks} range=${range} log=${log} text=${text} />
  </div>`;
}

// The shaded gap between two lines that may cross: its upper or lower edge.
const edge = ([a, b], series, pick) =>
  series[a].values.map((value, i) => (known(value) && known(series[b].values[i]) ? pick(value, series[b].values[i]) : null));

function columns(series, n, log, fill, given) {
  const drawable = (values) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
  const x = given ?? Array.from({ length: n }, (_, i) => i + 0.5);
  const edges = fill ? [edge(fill, series, Math.max), edge(fill, series, Math.min)] : [];
  return [x, ...edges, ...series.flatMap((s) => (s.low ? [s.low, s.high, s.values] : [s.values])).map(drawable)];
}

function options({ series, range, log, ticks, marks, fill, n, height, x, width }) {
  const style = getComputedStyle(document.documentElement);
  const token = (name) => style.getPropertyValue(`--${name}`).trim();
  const ink = { champion: token("champion"), challenger: token("challenger"), seen: token("ink3"), pale: token("ink3") };
  const lines = [{}];
  const bands = [];
  const hidden = () => ({ stroke: "transparent", points: { show: false } });
  if (fill) {
    lines.push(hidden(), hidden());
    bands.push({ series: [1, 2], fill: token("gap") });
  }
  for (const s of series) {
    if (s.low) {
      bands.push({ series: [lines.length + 1, lines.length], fill: `${ink[s.kind]}26` });
      lines.push(hidden(), hidden());
    }
    lines.push({
      stroke: ink[s.kind],
      width: { pale: 1, champion: 1.6 }[s.kind] ?? 1.4,
      dash: s.kind === "challenger" && !s.solid ? [4, 3] : undefined,
      points: { show: false, filter: alone, size: 4, width: 0, fill: ink[s.kind] },
    });
  }
  return {
    width,
    height,
    padding: [0, 0, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    axes: [{ show: false }, { show: false }],
    scales: { x: x ? { time: false, distr: 3, range: [x[0], x.at(-1)] } : { time: false, range: [0, n] }, y: { range, distr: log ? 3 : 1 } },
    series: lines,
    bands,
    hooks: {
      drawClear: [(u) => (ticks.forEach((at) => rule(u, at, token("hair"), [])), marks.forEach((mark) => ground(u, mark, token)))],
      draw: [(u) => marks.forEach((mark) => name(u, mark, token))],
    },
  };
}

// A value without neighbours makes no line: it becomes a dot.
const alone = (u, at) => {
  const values = u.data[at];
  return values.map((_, i) => i).filter((i) => known(values[i]) && !known(values[i - 1]) && !known(values[i + 1]));
};

function rule(u, at, stroke, dash) {
  const y = Math.round(u.valToPos(at, "y", true)) + 0.5;
  u.ctx.save();
  u.ctx.strokeStyle = stroke;
  u.ctx.lineWidth = devicePixelRatio;
  u.ctx.setLineDash(dash.map((part) => part * devicePixelRatio));
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}

function ground(u, mark, token) {
  const harm = mark.kind === "harm";
  if (harm) {
    const y = u.valToPos(mark.at, "y", true);
    u.ctx.fillStyle = `${token("fail2")}a0`;
    u.ctx.fillRect(u.bbox.left, y, u.bbox.width, Math.max(u.bbox.top + u.bbox.height - y, 0));
  }
  if (mark.kind !== "label") rule(u, mark.at, harm ? `${token("fail")}88` : token("ink3"), harm ? [] : [2, 3]);
}

// Text stands on a halo of paper, so that a line behind it does not cross it out.
function name(u, mark, token) {
  const dpr = devicePixelRatio;
  const x = mark.x === undefined ? u.bbox.left + 4 * dpr : u.valToPos(mark.x, "x", true);
  const line = u.valToPos(mark.at, "y", true);
  const below = mark.below || mark.kind === "harm" || line - u.bbox.top < 16 * dpr;
  const y = mark.foot ? u.bbox.top + u.bbox.height - 6 * dpr : line + (mark.down ?? (below ? 13 : -5)) * dpr;
  u.ctx.save();
  if (mark.down) stem(u, x, line, y, token);
  u.ctx.font = `${11 * dpr}px Inter, system-ui, sans-serif`;
  u.ctx.textAlign = mark.x === undefined || mark.down && x < u.bbox.left + u.bbox.width / 2 ? "left" : "right";
  u.ctx.lineJoin = "round";
  u.ctx.lineWidth = 3 * dpr;
  u.ctx.strokeStyle = mark.kind === "harm" ? token("fail2") : token("bg");
  u.ctx.fillStyle = token("ink2");
  u.ctx.strokeText(mark.text, x, y);
  u.ctx.fillText(mark.text, x, y);
  u.ctx.restore();
}

// A moment that decided: a dot on its line, and a stem to the words below.
function stem(u, x, line, y, token) {
  const dpr = devicePixelRatio;
  u.ctx.fillStyle = u.ctx.strokeStyle = token("ink");
  u.ctx.lineWidth = dpr;
  u.ctx.beginPath();
  u.ctx.moveTo(x, line);
  u.ctx.lineTo(x, y - 11 * dpr);
  u.ctx.stroke();
  u.ctx.beginPath();
  u.ctx.arc(x, line, 3 * dpr, 0, 2 * Math.PI);
  u.ctx.fill();
}

// The panels of a model's timeline: what happened, does it run, is it different, is it worse, can I know.
import { html, useEffect, useMemo, useState } from "/vendor/htm-preact.js";
import { get } from "/api.js";
import { clock, count, dot, half, known, month, monthStart, ms, percent, short, stamp } from "/format.js";
import { Bars, Cells, Histogram, Lines, Ticks, round } from "/plots.js";

const DAY = 86_400_000;
const step = (data) => (data.grain === "hour" ? DAY / 24 : DAY);
// 0 at the left end of the axis, 1 at its right end.
export const where = (data, time) => (time - data.days[0]) / (data.days.length * step(data));
const span = (data) => `from ${stamp(data.days[0], data.grain)} to ${stamp(data.days.at(-1), data.grain)}`;

const Panel = ({ title, note, readout, children, kind }) => html`<section class="panel ${kind ?? ""}">
  <header><b>${title}</b><small>${note}</small></header>
  <div class="plot">${children}</div>
  <div class="readout">${readout}</div>
</section>`;

const Value = ({ name, value, kind }) =>
  html`<div class=${kind ?? ""}><span>${name}</span><b class=${value === "–" ? "faint" : ""}>${value === "–" ? "unknown" : value}</b></div>`;

// --- events ---------------------------------------------------------------------------------------

const BANDS = 4;

export function Events({ data, at, hover }) {
  const routes = rows(data.events.filter((event) => event.kind === "route").map((event) => ({ ...event, x: where(data, event.at_ms) })));
  const bands = data.findings.filter((finding) => where(data, finding.since_ms) < 1);
  const more = bands.length - BANDS;
  return html`<${Panel} kind="events" title="Events" note="routes, findings"
    readout=${html`<p class="when"><b>${stamp(data.days[at], data.grain)}</b><small>${hover === null ? `last ${data.grain}` : "cursor"}</small></p>`}>
    <div class="routes" style="height:${(Math.max(-1, ...routes.map((event) => event.row)) + 1) * 30}px">
      ${routes.map((event) => html`<${RouteMark} event=${event} />`)}
    </div>
    ${bands.slice(0, BANDS).map((finding) => html`<${Band} finding=${finding} from=${Math.max(0, where(data, finding.since_ms))} />`)}
    ${more > 0 && html`<small>and ${more} more, below</small>`}
    ${!routes.length && !bands.length && html`<small>no route was changed and nothing was found in these days</small>`}
  <//>`;
}

const RouteMark = ({ event }) => html`<span class="route-mark ${event.x > 0.75 ? "left" : ""}" style="--x:${event.x * 100}%;top:${event.row * 30}px">
  <i class=${/shadow/.test(event.title) ? "diamond hollow" : "diamond"}></i><span><b>${event.title}</b><small>${event.note}</small></span>
</span>`;

// Labels that would touch stand below each other.
function rows(events) {
  const ends = [];
  return events
    .filter((event) => event.x >= 0 && event.x <= 1)
    .sort((a, b) => a.x - b.x)
    .map((event) => {
      const [from, to] = event.x > 0.75 ? [event.x - 0.2, event.x + 0.02] : [event.x, event.x + 0.2];
      const free = ends.findIndex((end) => end <= from);
      const row = free < 0 ? ends.length : free;
      ends[row] = to;
      return { ...event, row };
    });
}

const Band = ({ finding, from }) => html`<div class="band ${finding.severity} ${from > 0.6 ? "late" : ""}" style="--from:${from * 100}%" title="${finding.sentence} ${finding.value}">
  <i></i><span>${finding.sentence.replace(/\.$/, "")} · ${finding.severity}</span>
</div>`;

// --- does it run ----------------------------------------------------------------------------------

export function Traffic({ data, at, hover }) {
  const { requests, errors } = data.traffic;
  const top = Math.max(...requests, 1);
  const some = errors.some((number) => number > 0) ? errors : undefined;
  return html`<${Panel} title="Traffic" note="requests ${data.grain === "hour" ? "an hour" : "a day"}"
    readout=${html`<${Value} name="requests" value=${count(requests[at])} /><${Value} name="errors" value=${count(errors[at])} kind=${errors[at] > 0 ? "fail-text" : ""} />`}>
    <div class="framed"><${Bars} values=${requests} faults=${some} top=${top} height=${40} hover=${hover}
        label="Requests ${span(data)}: newest ${count(requests.at(-1))}, at most ${count(top)}." />
      <${Ticks} ticks=${[top]} range=${[0, top]} text=${count} /></div>
  <//>`;
}

export function Latency({ data, at }) {
  const { champion, shadow, slo_ms } = data.latency;
  const series = useMemo(() => [
    { values: champion.p99, kind: "champion" },
    { values: champion.p50, kind: "pale" },
    ...(shadow ? [{ values: shadow.p99, kind: "challenger" }] : []),
  ], [data]);
  const all = series.flatMap((s) => s.values).filter((value) => value > 0);
  const range = [Math.min(slo_ms / 5, ...all) * 0.6, Math.max(slo_ms * 3.5, ...all.map((value) => value * 1.5))];
  const late = champion.p99.filter((value) => value > slo_ms).length;
  return html`<${Panel} title="Latency" note="p50, p99, ms · log"
    readout=${html`<${Value} name="v${data.champion} p50" value=${ms(champion.p50[at])} /><${Value} name="v${data.champion} p99" value=${ms(champion.p99[at])} />
      ${shadow && html`<${Value} name="v${data.shadow} p99" value=${ms(shadow.p99[at])} kind="challenger-text" />`}`}>
    <${Lines} of=${data} series=${series} height=${68} range=${range} log ticks=${decades(range)} text=${(value) => String(value).replace(/^0\./, ".")}
      marks=${[{ at: slo_ms, text: `SLO p99 ${slo_ms} ms` }]}
      label="Latency ${span(data)}: p99 above the SLO of ${slo_ms} ms on ${late} of ${data.days.length} ${data.grain}s." />
  <//>`;
}

function decades([low, high]) {
  const inside = [0.001, 0.01, 0.1, 1, 10, 100, 1000, 10000].filter((at) => at >= low && at <= high);
  return inside.length > 4 ? inside.filter((_, i) => i % 2 === 0) : inside;
}

// --- is it different ------------------------------------------------------------------------------

const changed = (psi) => psi > 0.1;
// A feature of which nothing is known is not steady: it is unknown, and stays in sight.
const isSteady = (row) => row.psi.some(known) && !row.psi.some(changed);

export function Drift({ data, at, open, setOpen }) {
  if (!data.drift.length)
    return html`<section class="panel drift" data-testid="drift-strip"><header><b>Drift</b></header>
      <div class="plot"><div class="unknown">no reference to compare with</div></div></section>`;
  const steady = data.drift.filter(isSteady).length;
  return html`<section class="panel drift" data-testid="drift-strip">
    <header><b>Drift</b></header>
    <small class="words">PSI over 7 days, lower 95 % bound. Stronger means more different, not worse.</small>
    <div class="readout scale" aria-hidden="true">${[0, 1, 2, 3, 4, 5].map((d) => html`<i class="d${d}"></i>`)}
      ${[".02", ".1", ".25", "1", "3"].map((text, i) => html`<small style="left:${((i + 1) / 6) * 100}%">${text}</small>`)}</div>
    ${data.drift.map((row) => html`<${DriftRow} key=${row.feature} row=${row} at=${at} data=${data}
      open=${open?.feature === row.feature ? open : null} setOpen=${setOpen} />`)}
    ${steady > 0 && html`<small class="steady-count">${steady} steady</small>`}
  </section>`;
}

const called = (feature) => (feature === "score" ? "said (score)" : feature);

// The name opens the newest week, a cell the week that ends with its day.
function DriftRow({ row, at, data, open, setOpen }) {
  const toggle = (to) => () => setOpen(open && open.to === to ? null : { feature: row.feature, to });
  const value = row.psi[at];
  const steady = !open && isSteady(row) ? "steady" : "";
  const days = row.psi.filter(changed).length;
  return html`<button class="feature ${changed(value) ? "changed" : ""} ${steady}" title="open ${row.feature}" aria-expanded=${Boolean(open)}
      onClick=${() => setOpen(open ? null : { feature: row.feature, to: null })}>${called(row.feature)}</button>
    <div class="plot ${steady}" onClick=${toggle(data.days[at])}>
      <${Cells} psi=${row.psi} label="${called(row.feature)} changed on ${days} of ${row.psi.length} ${data.grain}s; ${known(value) ? `PSI ${dot(value, 2)} now` : "unknown now"}." /></div>
    <div class="readout ${steady}"><span>${called(row.feature)}</span><b class=${changed(value) ? "" : "faint"}>${known(value) ? dot(value, 2) : "unknown"}</b></div>
    ${open && html`<${Feature} data=${data} feature=${row.feature} to=${open.to ?? data.days.at(-1)} />`}`;
}

// The last answer stays until the next one is there.
function Feature({ data, feature, to }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    let left = false;
    const timer = setTimeout(() => {
      const query = `version=${data.champion}&from=${to - 6 * DAY}&to=${to}`;
      const path = `models/${encodeURIComponent(data.model)}/features/${encodeURIComponent(feature)}?${query}`;
      get(path).then((answer) => left || setFound({ ...answer, to }), (error) => left || setFound({ error }));
    }, 120);
    return () => ((left = true), clearTimeout(timer));
  }, [to, feature, data]);
  if (!found) return html`<div class="opened"></div>`;
  if (found.error) return html`<div class="opened"><p>This feature cannot be shown: ${found.error.message}.</p></div>`;
  return html`<div class="opened">
    <p class="legend"><b>${called(found.feature)}</b><span>${found.kind}, 7 days to ${stamp(found.to, data.grain)}</span>
      <span><i class="swatch filled"></i>reference</span><span><i class="swatch outlined"></i>these days</span></p>
    ${found.rows ? html`<${Histogram} data=${found} />` : html`<div class="unknown">no rows in these days</div>`}
    <dl class="facts">${facts(found).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </div>`;
}

function facts(found) {
  const told = [
    ["PSI", known(found.psi) ? dot(found.psi, 2) : "unknown"],
    ["at least (95 %)", known(found.psi_low) ? dot(found.psi_low, 2) : "unknown"],
    ["chance of this if nothing changed", chance(found.p_value)],
    ["rows", count(found.rows)],
    ...(known(found.ks) && found.kind !== "categorical" ? [["KS, Wasserstein", `${dot(found.ks, 2)}, ${Number(found.wasserstein.toPrecision(3))}`]] : []),
    ...(known(found.importance) ? [["share of the model's attention", percent(found.importance)]] : []),
    ["missing", `${percent(found.missing, 1)}, reference ${percent(found.reference_missing, 1)}`],
  ];
  return found.unseen > 0 ? [...told, ["never seen in the reference", percent(found.unseen, 2)]] : told;
}

const chance = (p) => (!known(p) ? "unknown" : p < 0.001 ? "below .001" : dot(p));

// --- is it worse ----------------------------------------------------------------------------------

const Unlabelled = ({ title, note }) => html`<${Panel} title=${title} note=${note}><div class="unknown">no labels yet</div><//>`;

export const Ranking = ({ data, at }) =>
  data.ranking
    ? html`<${Banded} data=${data} at=${at} found=${data.ranking} title="Ranking" note="AUC over 28 days, 95 % band" />`
    : html`<${Unlabelled} title="Ranking" note="AUC over 28 days" />`;

export const Accuracy = ({ data, at }) =>
  data.task === "regression" ? html`<${Errors} data=${data} at=${at} />` : data.accuracy
    ? html`<${Banded} data=${data} at=${at} found=${data.accuracy} title="Accuracy" note="over 28 days, 95 % band" />`
    : html`<${Unlabelled} title="Accuracy" note="over 28 days" />`;

const Errors = ({ data, at }) =>
  data.error
    ? html`<${Banded} data=${data} at=${at} found=${data.error} title="Error" note="mean absolute, 28 days" />`
    : html`<${Unlabelled} title="Error" note="mean absolute, 28 days" />`;

function Banded({ data, at, found, title, note }) {
  const { champion, shadow, reference, harm } = found;
  const promised = found.estimate && found.estimate.value.some(known) ? found.estimate : null;
  const series = useMemo(() => [
    banded(champion, "champion"),
    ...(shadow ? [banded(shadow, "challenger")] : []),
    ...(promised ? [{ values: promised.value, low: promised.value, high: promised.value, kind: "seen" }] : []),
  ], [data]);
  const marks = [];
  if (known(harm)) marks.push({ at: harm, text: `harm: whole band below ${dot(harm)}`, kind: "harm" });
  if (known(reference)) marks.push({ at: reference, text: `reference ${dot(reference)}` });
  const range = fitted(series, marks.map((mark) => mark.at));
  const last = point(champion, data.days.length - 1);
  return html`<${Panel} title=${title} note=${note}
    readout=${html`<${Value} name="v${data.champion}" value=${half(point(champion, at))} />
      ${shadow && html`<${Value} name="v${data.shadow}" value=${half(point(shadow, at))} kind="challenger-text" />`}
      ${promised && html`<${Value} name="scores promise" value=${known(promised.value[at]) ? dot(promised.value[at]) : "unknown"} kind="muted-text" />`}
      ${known(reference) && html`<${Value} name="reference" value=${dot(reference)} />`}`}>
    <${Lines} of=${data} series=${series} height=${100} range=${range} ticks=${round(range)} text=${(value) => dot(value, 2)} marks=${marks}
      label="${title} ${span(data)}: ${last ? half(last) : "unknown"} at the end${known(reference) ? `, ${dot(reference)} at training` : ""}." />
  <//>`;
}

const banded = (bands, kind) => ({ values: bands.value, low: bands.low, high: bands.high, kind });
const point = (bands, at) => (known(bands.value[at]) ? { value: bands.value[at], low: bands.low[at], high: bands.high[at] } : null);

function fitted(series, more) {
  const values = [...series.flatMap((s) => [...s.low, ...s.high, ...s.values]).filter(known), ...more];
  if (!values.length) return [0, 1];
  const low = Math.min(...values), high = Math.max(...values);
  const pad = Math.max((high - low) * 0.2, 0.01);
  return [Math.max(low - pad, 0), Math.min(high + pad, 1.005)];
}

export function SaidSeen({ data, at }) {
  if (!data.said_seen) return html`<${Unlabelled} title="Said and seen" note="mean score against the share that came true" />`;
  const { seen, champion, shadow } = data.said_seen;
  const series = useMemo(() => [
    { values: seen, kind: "seen" },
    { values: champion, kind: "champion" },
    ...(shadow ? [{ values: shadow, kind: "challenger" }] : []),
  ], [data]);
  const top = Math.min(Math.max(...series.flatMap((s) => s.values).filter(known), 0.05) * 1.3, 1);
  const gap = known(seen[at]) && known(champion[at]) ? seen[at] - champion[at] : null;
  return html`<${Panel} title="Said and seen" note="mean score against the share that came true, 28 days"
    readout=${html`<${Value} name="seen" value=${percent(seen[at])} /><${Value} name="v${data.champion} said" value=${percent(champion[at])} />
      ${shadow && html`<${Value} name="v${data.shadow} said" value=${percent(shadow[at])} kind="challenger-text" />`}
      ${Math.abs(gap) > 0.05 && html`<${Value} name="v${data.champion} too ${gap > 0 ? "low" : "high"} by" value="${(Math.abs(gap) * 100).toFixed(0)} points" kind="warn-text" />`}`}>
    <${Lines} of=${data} series=${series} height=${96} range=${[0, top]} ticks=${round([0, top])} text=${percent} fill=${[0, 1]}
      marks=${labels(seen, champion, `v${data.champion} said`)}
      label="Said and seen ${span(data)}: ${percent(champion.at(-1))} said and ${percent(seen.at(-1))} seen at the end." />
  <//>`;
}

// Each line is named where the two are furthest apart.
function labels(seen, said, name) {
  let best = -1, widest = 0;
  seen.forEach((value, i) => {
    const gap = known(value) && known(said[i]) ? Math.abs(value - said[i]) : 0;
    if (i > seen.length * 0.15 && i < seen.length * 0.98 && gap > widest) (best = i), (widest = gap);
  });
  if (best < 0) return [];
  const above = seen[best] > said[best];
  return [
    { kind: "label", at: seen[best], x: best, text: "seen", below: !above },
    { kind: "label", at: said[best], x: best, text: name, below: above },
  ];
}

// --- can I know -----------------------------------------------------------------------------------

export function Coverage({ data, at, hover }) {
  const { labelled } = data.coverage;
  const unripe = ripe(labelled);
  return html`<${Panel} kind="coverage" title="Label coverage" note="of predictions"
    readout=${html`<${Value} name="labelled" value=${percent(labelled[at])} />${at >= unripe && html`<small>still arriving</small>`}`}>
    <div class="framed"><${Bars} values=${labelled} top=${1} height=${28} hover=${hover} unripe=${unripe}
        label="Share of predictions with a label ${span(data)}: ${percent(labelled.at(-1))} of the newest." />
      <${Ticks} ticks=${[1]} range=${[0, 1]} text=${percent} /></div>
  <//>`;
}

// Where the newest days begin that are not yet at 80 % of the plateau.
function ripe(labelled) {
  const there = labelled.filter((value) => value > 0).sort((a, b) => a - b);
  if (!there.length) return Infinity;
  const plateau = there[Math.floor(there.length / 2)];
  return labelled.findLastIndex((value) => known(value) && value >= 0.8 * plateau) + 1;
}

// --- the axis -------------------------------------------------------------------------------------

export function Axis({ data, at, hover }) {
  const n = data.days.length;
  return html`<section class="panel axis" aria-hidden="true"><header></header><div class="plot">
    ${marks(data).map(([i, text]) => html`<span class="mark" style="left:${(i / n) * 100}%">${text}</span>`)}
    ${hover !== null && html`<b class="here" style="left:${((at + 0.5) / n) * 100}%">${data.grain === "hour" ? clock(data.days[at]) : short(data.days[at])}</b>`}
  </div></section>`;
}

function marks({ days, grain }) {
  const n = days.length;
  const indices = days.map((_, i) => i);
  if (grain === "hour") return thin(indices.filter((i) => i === 0 || days[i] % DAY === 0)).map((i) => [i, short(days[i])]);
  if (n <= 45) return indices.filter((i) => i % Math.ceil(n / 7) === 0).map((i) => [i, short(days[i])]);
  const starts = indices.filter((i) => monthStart(days[i]));
  return [...(starts[0] > n * 0.06 ? [0] : []), ...thin(starts)].map((i) => [i, month(days[i])]);
}

const thin = (list) => list.filter((_, i) => i % Math.ceil(list.length / 12) === 0);

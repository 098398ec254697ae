// One model over its days. All panels share one axis, one cursor and one range.
import { html, useEffect, useMemo, useState } from "/vendor/htm-preact.js";
import { count, half, ms, percent } from "/format.js";
import { Findings, Verdict } from "/overview.js";
import { Accuracy, Axis, Coverage, Drift, Events, Latency, Ranking, SaidSeen, Traffic, where } from "/panels.js";
import { Whisker } from "/plots.js";

export function Model({ data }) {
  const [range, zoom] = useRange(data.days);
  const shown = useMemo(() => cut(data, range), [data, range?.[0], range?.[1]]);
  const n = shown.days.length;
  const [hover, setHover] = useState(null);
  const [open, setOpen] = useState(null);
  const drag = useDrag(n, setHover, (from, to) => zoom([shown.days[from], shown.days[to]]), () => zoom(null));
  useArrows(n, setHover);
  const at = hover === null ? n - 1 : Math.min(hover, n - 1);
  const panel = { data: shown, at, hover };
  return html`<main data-testid="timeline">
    <${Verdict} verdict=${data.verdict} detail=${data.verdict.detail} />
    ${data.missing && html`<p class="note">${data.missing}</p>`}
    <${Legend} data=${data} range=${range} reset=${() => zoom(null)} />
    ${n > 0 && html`<div class="panels" ...${drag.handlers}>
      <${Events} ...${panel} />
      <${Traffic} ...${panel} /><${Latency} ...${panel} />
      <${Drift} ...${panel} open=${open} setOpen=${(next) => drag.moved() || setOpen(next)} />
      <${Ranking} ...${panel} /><${Accuracy} ...${panel} /><${SaidSeen} ...${panel} /><${Coverage} ...${panel} />
      <${Axis} ...${panel} />
      <${Rules} data=${shown} />
      ${drag.from !== null && html`<i class="drawn" style="--at:${Math.min(drag.from, at) / n};--to:${(Math.max(drag.from, at) + 1) / n}"></i>`}
      ${hover !== null && html`<i class="cursor" style="--at:${(at + 0.5) / n}"></i>`}
    </div>`}
    <div class="columns">
      <${Compare} data=${data} />
      <${Findings} findings=${data.findings} />
    </div>
  </main>`;
}

function Legend({ data, range, reset }) {
  const note = (number) => data.versions.find((v) => v.number === number)?.note;
  const named = (number, role) => `v${number} ${role}${note(number) ? `, ${note(number)}` : ""}`;
  return html`<p class="legend">
    <span><i class="key champion"></i>${named(data.champion, "champion")}</span>
    ${data.shadow && html`<span><i class="key challenger"></i>${named(data.shadow, "shadow")}: answers nobody</span>`}
    <span><i class="key hatched"></i>unknown or still arriving</span>
    ${range
      ? html`<span class="hint"><button class="plain" onClick=${reset}>show all ${data.days.length} ${data.grain}s</button></span>`
      : html`<span class="hint">drag to zoom · click a feature · <kbd>←</kbd> <kbd>→</kbd> move the cursor</span>`}
  </p>`;
}

const Rules = ({ data }) =>
  data.events
    .filter((event) => event.kind === "route")
    .map((event) => where(data, event.at_ms))
    .filter((at) => at >= 0 && at <= 1)
    .map((at) => html`<i class="rule" style="--at:${at}"></i>`);

// --- range and cursor -----------------------------------------------------------------------------

// The range is in the address, so that a copied link gives the same picture.
function useRange(days) {
  const query = new URLSearchParams(location.hash.split("?")[1]);
  const asked = query.has("from") ? [Number(query.get("from")), Number(query.get("to"))] : null;
  const [range, setRange] = useState(asked);
  const zoom = (next) => {
    const path = location.hash.split("?")[0];
    history.replaceState(null, "", next ? `${path}?from=${next[0]}&to=${next[1]}` : path);
    setRange(next);
  };
  const some = range && days.some((day) => day >= range[0] && day <= range[1]);
  return [some ? range : null, zoom];
}

// Every list of numbers that is parallel to the days, cut to the range; the rest as it is.
function cut(data, range) {
  if (!range) return data;
  const { days } = data;
  const from = days.findIndex((day) => day >= range[0]);
  const to = days.findLastIndex((day) => day <= range[1]) + 1;
  const parallel = (value) => value.length === days.length && value.every((v) => v === null || typeof v === "number");
  const walk = (value) => {
    if (Array.isArray(value)) return parallel(value) ? value.slice(from, to) : value.map(walk);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, walk(inner)]));
  };
  return walk(data);
}

const held = (value, n) => Math.max(0, Math.min(n - 1, value));

function indexUnder(event, n) {
  const plot = event.target.closest?.(".plot");
  if (!plot) return null;
  const box = plot.getBoundingClientRect();
  return held(Math.floor(((event.clientX - box.left) / box.width) * n), n);
}

function useDrag(n, setHover, zoom, reset) {
  const [from, setFrom] = useState(null);
  const [moved] = useState({ last: 0 });
  const handlers = {
    onMouseMove: (event) => {
      const at = indexUnder(event, n);
      if (at !== null) setHover(at);
    },
    onMouseLeave: () => (setHover(null), setFrom(null)),
    onMouseDown: (event) => event.button === 0 && setFrom(indexUnder(event, n)),
    onMouseUp: (event) => {
      const to = indexUnder(event, n);
      setFrom(null);
      if (from === null || to === null || Math.abs(to - from) < 2) return;
      moved.last = event.timeStamp;
      setHover(null);
      zoom(Math.min(from, to), Math.max(from, to));
    },
    onDblClick: reset,
  };
  // The click that ends a drag opens nothing.
  return { from, handlers, moved: () => performance.now() - moved.last < 50 };
}

function useArrows(n, setHover) {
  useEffect(() => {
    const step = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) setHover((h) => held((h ?? n - 1) + by * (event.shiftKey ? 7 : 1), n));
      if (event.key === "Escape") setHover(null);
    };
    addEventListener("keydown", step);
    return () => removeEventListener("keydown", step);
  }, [n]);
}

// --- champion against shadow ----------------------------------------------------------------------

function Compare({ data }) {
  if (!data.shadow) return null;
  const { compare } = data;
  if (!compare)
    return html`<section data-testid="compare-block" class="compare"><h3>Champion against shadow</h3>
      <div class="unknown">no request was answered by both yet</div></section>`;
  const { agreement, champion, shadow } = compare;
  return html`<section data-testid="compare-block" class="compare">
    <h3>Champion against shadow <small>on the same ${count(compare.pairs)} requests · <a href="#/${encodeURIComponent(data.model)}/compare">compare and decide</a></small></h3>
    ${agreement && html`<p>They agree on <b>${percent(agreement.value, 1)}</b>
      <small> (${percent(agreement.low, 1)} to ${percent(agreement.high, 1)})</small>,
      so their accuracies differ by at most ${((1 - agreement.low) * 100).toFixed(1)} points.</p>`}
    <table><thead><tr><th></th><th>p50</th><th>p99</th><th>accuracy</th><th><${Scale} arms=${[champion, shadow]} /></th></tr></thead>
      <tbody><${Arm} name="v${data.champion} champion" arm=${champion} axis=${axis(champion, shadow)} kind="champion" />
        <${Arm} name="v${data.shadow} shadow" arm=${shadow} axis=${axis(champion, shadow)} kind="challenger" /></tbody></table>
    <small>${verdict(champion.accuracy, shadow.accuracy)} The champion's time is the whole request, the shadow's the model alone.</small>
  </section>`;
}

const Arm = ({ name, arm, axis, kind }) => html`<tr class=${kind === "challenger" ? "challenger-text" : ""}>
  <th>${name}</th><td>${ms(arm.p50)}</td><td>${ms(arm.p99)}</td><td>${arm.accuracy ? half(arm.accuracy) : "unknown"}</td>
  <td class="whisker">${arm.accuracy
      ? html`<svg class="whiskers" width="100%" height="16" role="img" aria-label="Accuracy of ${name} ${half(arm.accuracy)}."><${Whisker} estimate=${arm.accuracy} axis=${axis} y="8" kind=${kind} /></svg>`
      : html`<div class="unknown">no labels yet</div>`}</td>
</tr>`;

function axis(...arms) {
  const ends = arms.flatMap(({ accuracy }) => (accuracy ? [accuracy.low, accuracy.high] : []));
  const pad = (Math.max(...ends) - Math.min(...ends)) * 0.15 || 0.01;
  return [Math.min(...ends) - pad, Math.max(...ends) + pad];
}

function Scale({ arms }) {
  if (!arms.some((arm) => arm.accuracy)) return null;
  const [low, high] = axis(...arms);
  return html`<span class="scale-ends"><span>${percent(low, 1)}</span><span>${percent(high, 1)}</span></span>`;
}

function verdict(champion, shadow) {
  if (!champion || !shadow) return "Accuracy is unknown until labels arrive.";
  const apart = champion.high < shadow.low || shadow.high < champion.low;
  return apart ? "The intervals are apart." : "The intervals overlap.";
}

// One model over its days. All panels share one axis and one cursor.
import { html, useEffect, useState } from "/vendor/htm-preact.js";
import { get } from "/api.js";
import { count, day, dot, half, known, month, monthStart, ms, percent } from "/format.js";
import { Bars, Histogram, Lines, driftClass } from "/plots.js";
import { Findings, Verdict } from "/overview.js";

export function Model({ data }) {
  const [hover, setHover] = useState(null);
  const [open, setOpen] = useState(null);
  const n = data.days.length;
  const at = hover === null ? n - 1 : Math.min(hover, n - 1);
  const move = (event) => {
    const plot = event.target.closest(".plot");
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    setHover(Math.max(0, Math.min(n - 1, Math.floor(((event.clientX - box.left) / box.width) * n))));
  };
  useEffect(() => {
    const step = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) setHover((h) => Math.max(0, Math.min(n - 1, (h ?? n - 1) + by * (event.shiftKey ? 7 : 1))));
    };
    addEventListener("keydown", step);
    return () => removeEventListener("keydown", step);
  }, [n]);
  const note = (number) => data.versions.find((v) => v.number === number)?.note ?? "";
  return html`<main data-testid="timeline">
    <${Verdict} verdict=${data.verdict} detail=${data.verdict.detail} />
    ${data.missing && html`<p class="note">${data.missing}</p>`}
    <p class="legend">
      <span><i class="key champion"></i>v${data.champion} champion${note(data.champion) && `, ${note(data.champion)}`}</span>
      ${data.shadow && html`<span><i class="key challenger"></i>v${data.shadow} shadow${note(data.shadow) && `, ${note(data.shadow)}`}: answers nobody</span>`}
      <span class="hint">click a row to open the feature · ← → move the cursor</span>
    </p>
    <div class="panels" onMouseMove=${move} onMouseLeave=${() => setHover(null)}>
      <${Panel} title="" note="" readout=${html`<b>${day(data.days[at])}</b><small>${hover === null ? "newest" : "cursor"}</small>`}><${Months} days=${data.days} /><//>
      <${Traffic} data=${data} at=${at} hover=${hover} />
      <${Latency} data=${data} at=${at} />
      <${Drift} data=${data} at=${at} open=${open} setOpen=${setOpen} />
      <${Banded} data=${data} at=${at} name="ranking" title="Ranking" note="AUC over 28 days, 95 % band" />
      <${Banded} data=${data} at=${at} name="accuracy" title="Accuracy" note="over 28 days, 95 % band" />
      <${SaidSeen} data=${data} at=${at} />
      <${Coverage} data=${data} at=${at} hover=${hover} />
      ${n > 0 && html`<i class="cursor" style="--at:${(at + 0.5) / n}"></i>`}
    </div>
    ${data.compare && html`<${Compare} data=${data} />`}
    <${Findings} findings=${data.findings} />
  </main>`;
}

const Panel = ({ title, note, readout, children, testid }) => html`<section class="panel" data-testid=${testid}>
  <header><b>${title}</b><small>${note}</small></header>
  <div class="plot">${children}</div>
  <div class="readout">${readout}</div>
</section>`;

const Value = ({ name, value, kind }) => html`<div class="${kind ?? ""}"><span>${name}</span><b>${value}</b></div>`;

const Months = ({ days }) => html`<div class="months">
  ${days.map((time, i) => (monthStart(time) || i === 0) && html`<span style="left:${(i / days.length) * 100}%">${month(time)}</span>`)}
</div>`;

const Traffic = ({ data, at, hover }) => html`<${Panel} title="Traffic" note="requests a day"
  readout=${html`<${Value} name="requests" value=${count(data.traffic.requests[at])} /><${Value} name="errors" value=${count(data.traffic.errors[at])} />`}>
  <${Bars} values=${data.traffic.requests} height=${38} hover=${hover} label="requests a day" />
<//>`;

function Latency({ data, at }) {
  const { champion, shadow, slo_ms } = data.latency;
  const series = [{ values: champion.p50, kind: "pale" }, { values: champion.p99, kind: "champion" }];
  if (shadow) series.push({ values: shadow.p99, kind: "challenger" });
  const top = Math.max(slo_ms * 4, ...champion.p99.filter(known));
  return html`<${Panel} title="Latency" note="p50, p99, ms · log"
    readout=${html`<${Value} name="v${data.champion} p50" value=${ms(champion.p50[at])} /><${Value} name="v${data.champion} p99" value=${ms(champion.p99[at])} />
      ${shadow && html`<${Value} name="v${data.shadow} p99" value=${ms(shadow.p99[at])} kind="challenger-text" />`}`}>
    <${Lines} series=${series} height=${66} range=${[0.02, top]} log marks=${[{ at: slo_ms, text: `SLO p99 ${slo_ms} ms` }]} label="latency a day" />
  <//>`;
}

function Drift({ data, at, open, setOpen }) {
  if (!data.drift.length) return null;
  const narrow = matchMedia("(max-width: 600px)").matches;
  const changed = data.drift.filter((row) => row.psi.some((psi) => psi > 0.1));
  const rows = narrow ? changed : data.drift;
  return html`<section class="panel drift" data-testid="drift-strip">
    <header><b>Drift</b></header>
    <div><small>PSI over 7 days, lower 95 % bound. Stronger means more different, not worse.</small></div>
    <div class="scale">${[0, 1, 2, 3, 4, 5].map((d) => html`<i class="d${d}"></i>`)}<small>.02 · .1 · .25 · 1 · 3</small></div>
    ${rows.map((row) => html`<${DriftRow} row=${row} at=${at} data=${data} open=${open === row.feature} toggle=${() => setOpen(open === row.feature ? null : row.feature)} key=${row.feature} />`)}
    ${narrow && html`<small class="steady">${data.drift.length - changed.length} steady</small>`}
  </section>`;
}

function DriftRow({ row, at, data, open, toggle }) {
  const value = row.psi[at];
  const runs = runLengths(row.psi.map(driftClass));
  return html`<button class="feature ${value > 0.1 ? "changed" : ""}" onClick=${toggle} aria-expanded=${open} title="open ${row.feature}">${row.feature === "score" ? "said (score)" : row.feature}</button>
    <div class="plot cells" onClick=${toggle}><svg viewBox="0 0 ${row.psi.length} 10" preserveAspectRatio="none" role="img" aria-label="drift of ${row.feature}">
      ${runs.map(([kind, from, length]) => html`<rect x=${from} y="0" width=${length} height="10" class=${kind} />`)}
    </svg></div>
    <div class="readout"><b class=${value > 0.1 ? "" : "faint"}>${dot(value, 2)}</b></div>
    ${open && html`<${Feature} data=${data} row=${row} at=${at} />`}`;
}

function runLengths(kinds) {
  const runs = [];
  kinds.forEach((kind, i) => {
    if (runs.length && runs.at(-1)[0] === kind) runs.at(-1)[2] += 1;
    else runs.push([kind, i, 1]);
  });
  return runs;
}

function Feature({ data, row, at }) {
  const [found, setFound] = useState(null);
  const to = data.days[at];
  useEffect(() => {
    const timer = setTimeout(() => {
      const query = `version=${data.champion}&from=${to - 6 * 86400000}&to=${to}`;
      get(`models/${data.model}/features/${row.feature}?${query}`).then(setFound, (error) => setFound({ error }));
    }, 120);
    return () => clearTimeout(timer);
  }, [to, row.feature]);
  if (!found) return html`<div class="opened"></div>`;
  if (found.error) return html`<div class="opened faint">${found.error.message}</div>`;
  return html`<div class="opened">
    <p><b>${found.feature}</b>, 7 days to ${day(to)}: PSI ${dot(found.psi, 2)}, at least ${dot(found.psi_low, 2)};
      ${count(found.rows)} rows; missing ${percent(found.missing, 1)}, reference ${percent(found.reference_missing, 1)}${found.unseen > 0 ? `; unseen ${percent(found.unseen, 2)}` : ""}.
      <small> Grey: reference. Line: these days.</small></p>
    <${Histogram} data=${found} />
  </div>`;
}

function Banded({ data, at, name, title, note }) {
  const found = data[name];
  if (!found) return name === "ranking" ? html`<${Panel} title="Quality" note="on feedback" readout=""><div class="unknown">no labels yet</div><//>` : null;
  const series = [{ ...pick(found.champion), kind: "champion" }];
  if (found.shadow) series.push({ ...pick(found.shadow), kind: "challenger" });
  const marks = [];
  if (known(found.reference)) marks.push({ at: found.reference, text: `reference ${dot(found.reference)}` });
  if (known(found.harm)) marks.push({ at: found.harm, text: `harm: whole band below ${dot(found.harm)}`, kind: "harm" });
  const all = series.flatMap((s) => [...s.low, ...s.high]).filter(known).concat(marks.map((mark) => mark.at));
  const range = [Math.min(...all) - 0.02, Math.max(...all) + 0.02];
  return html`<${Panel} title=${title} note=${note}
    readout=${html`<${Value} name="v${data.champion}" value=${half(point(found.champion, at))} />
      ${found.shadow && html`<${Value} name="v${data.shadow}" value=${half(point(found.shadow, at))} kind="challenger-text" />`}
      ${known(found.reference) && html`<${Value} name="reference" value=${dot(found.reference)} />`}`}>
    <${Lines} series=${series} height=${96} range=${range} marks=${marks} label="${title} over time, both versions" />
  <//>`;
}

const pick = (bands) => ({ values: bands.value, low: bands.low, high: bands.high });
const point = (bands, at) => (known(bands.value[at]) ? { value: bands.value[at], low: bands.low[at], high: bands.high[at] } : null);

function SaidSeen({ data, at }) {
  const found = data.said_seen;
  if (!found) return null;
  const series = [{ values: found.seen, kind: "seen" }, { values: found.champion, kind: "champion" }];
  if (found.shadow) series.push({ values: found.shadow, kind: "challenger" });
  const gap = known(found.seen[at]) && known(found.champion[at]) ? found.seen[at] - found.champion[at] : null;
  return html`<${Panel} title="Said and seen" note="mean score against the share that came true, 28 days"
    readout=${html`<${Value} name="seen" value=${percent(found.seen[at])} /><${Value} name="v${data.champion} said" value=${percent(found.champion[at])} />
      ${found.shadow && html`<${Value} name="v${data.shadow} said" value=${percent(found.shadow[at])} kind="challenger-text" />`}
      ${gap !== null && Math.abs(gap) > 0.05 && html`<${Value} name="v${data.champion} too ${gap > 0 ? "low" : "high"} by" value="${(Math.abs(gap) * 100).toFixed(0)} points" kind="warn-text" />`}`}>
    <${Lines} series=${series} height=${92} label="what the versions said and what was seen" />
  <//>`;
}

const Coverage = ({ data, at, hover }) => html`<${Panel} title="Label coverage" note="of predictions"
  readout=${html`<${Value} name="labelled" value=${percent(data.coverage.labelled[at])} />`}>
  <${Bars} values=${data.coverage.labelled} height=${26} hover=${hover} label="share of predictions with a label" />
<//>`;

function Compare({ data }) {
  const { compare } = data;
  const line = (name, arm, kind) => html`<tr class=${kind}><th>${name}</th><td>${ms(arm.p50)}</td><td>${ms(arm.p99)}</td>
    <td>${half(arm.accuracy)}</td></tr>`;
  return html`<section data-testid="compare-block" class="compare">
    <h3>Champion against shadow <small>on the same ${count(compare.pairs)} requests</small></h3>
    <p>They agree on <b>${percent(compare.agreement?.value, 1)}</b>
      <small> (${percent(compare.agreement?.low, 1)} to ${percent(compare.agreement?.high, 1)})</small>,
      so their accuracies differ by at most ${percent(1 - (compare.agreement?.low ?? 0), 1)}.</p>
    <table><thead><tr><th></th><th>p50</th><th>p99</th><th>accuracy, same requests</th></tr></thead>
      <tbody>${line(`v${data.champion} champion`, compare.champion)}${line(`v${data.shadow} shadow`, compare.shadow, "challenger-text")}</tbody></table>
    <small>The champion's time is the whole request, the shadow's the model alone.</small>
  </section>`;
}

// All models at a glance: a sentence first, then its evidence.
import { html } from "/vendor/htm-preact.js";
import { day, dot, half, ms } from "/format.js";
import { Icon, Sparkline, Strip, Whiskers } from "/plots.js";

export function Overview({ data }) {
  if (!data.models.length) return html`<${Empty} />`;
  return html`<main data-testid="overview">
    <${Verdict} verdict=${data.verdict} detail=${`${data.verdict.detail} As of ${day(data.event_as_of_ms)}, event time.`} />
    <dl class="vitals">
      ${data.vitals.map((v) => html`<div><dt>${v.title}</dt><dd>${v.value}</dd><small>${v.note}</small></div>`)}
    </dl>
    <div class="row head" aria-hidden="true">
      <span>Model</span><span>Requests · 24 h</span><span>p99 · 24 h</span><span>Drift · 30 days</span>
      <span>Quality on feedback</span><span>Open findings</span>
    </div>
    ${data.models.map((model) => html`<${ModelRow} model=${model} key=${model.name} />`)}
    <div class="columns">
      <${Findings} findings=${data.findings} />
      <${Changes} changes=${data.changes} />
    </div>
  </main>`;
}

export const Verdict = ({ verdict, detail }) => html`<section class="verdict">
  <${Icon} level=${verdict.level} />
  <div><h1>${verdict.sentence}</h1><p>${detail}</p></div>
</section>`;

export const Chip = ({ version }) =>
  version.role === "champion"
    ? html`<span class="chip champion">v${version.number} champion</span>`
    : version.role === "shadow"
      ? html`<span class="chip shadow">v${version.number} shadow ${version.percent} %</span>`
      : html`<span class="chip">v${version.number}</span>`;

function ModelRow({ model }) {
  const { traffic, latency, drift, quality, alerts } = model;
  return html`<a class="row model" href="#/${encodeURIComponent(model.name)}" data-testid="model-row">
    <div class="who">
      <h2><${Icon} level=${model.verdict.level} />${model.name}</h2>
      <p class="chips">${model.versions.filter((v) => v.role !== "idle").map((v) => html`<${Chip} version=${v} />`)}</p>
      <p>${model.verdict.sentence}</p>
    </div>
    <div><b>${traffic.value}</b><small>${traffic.note}</small>
      <${Sparkline} points=${traffic.points} area label="requests an hour over 24 hours" /></div>
    <div><b>${ms(latency.p99_ms)}</b><small>SLO ${latency.slo_ms} ms</small>
      <${Sparkline} points=${latency.points} limit=${latency.slo_ms} label="p99 an hour over 24 hours" /></div>
    <div><b>${drift.features ? `${drift.changed} of ${drift.features} changed` : "not profiled"}</b>
      ${drift.strip.length > 0 && html`<${Strip} rows=${drift.strip} label="drift of the most changed features over 30 days" />`}
      <small>${drift.names.join(", ")}</small></div>
    <div>${quality
        ? html`<b>${quality.metric} ${half(quality.champion)}</b>${quality.shadow && html`<b class="challenger-text">${dot(quality.shadow.value)}</b>`}
            <${Whiskers} quality=${quality} />`
        : html`<b class="faint">unknown</b><div class="unknown">no labels yet</div>`}</div>
    <div class="open">
      ${alerts.page + alerts.ticket + alerts.digest === 0 && html`<span class="faint">none</span>`}
      ${alerts.page > 0 && html`<span class="fail-text"><${Icon} level="page" />${alerts.page} page</span>`}
      ${alerts.ticket > 0 && html`<span class="warn-text"><${Icon} level="ticket" />${alerts.ticket} ticket</span>`}
      ${alerts.digest > 0 && html`<small>+ ${alerts.digest} digests</small>`}
    </div>
  </a>`;
}

export const Findings = ({ findings }) => {
  const urgent = findings.filter((f) => f.severity !== "digest").length;
  return html`<section>
    <h3>Needs a person <span class="count">${urgent}</span><small> and ${findings.length - urgent} to know of</small></h3>
    ${findings.slice(0, 12).map(
      (f) => html`<div class="finding"><${Icon} level=${f.severity} />
        <span>${f.sentence}<small>${f.model} v${f.version}</small></span>
        <span class="value">${f.value}</span><small>since ${day(f.since_ms)}</small></div>`,
    )}
    ${!findings.length && html`<p class="faint">nothing</p>`}
  </section>`;
};

const Changes = ({ changes }) => html`<section>
  <h3>What changed</h3>
  ${changes.map(
    (c) => html`<div class="change"><small>${day(c.at_ms)}</small><span>${c.model}</span><b>${c.what}</b>
      <span class="faint">${c.why && `“${c.why}”`}</span><small>${c.who}</small></div>`,
  )}
  ${!changes.length && html`<p class="faint">no route was changed yet</p>`}
</section>`;

const Empty = () => html`<main data-testid="overview">
  <${Verdict} verdict=${{ level: "unknown", sentence: "No model yet." }} detail="Two commands bring the first one:" />
  <pre><code>slipstream up
slipstream push MODEL FILE.onnx --reference data.parquet --target COLUMN</code></pre>
</main>`;


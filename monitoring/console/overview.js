// All models at a glance: a sentence first, then its evidence.
import { html } from "/vendor/htm-preact.js";
import { day, dot, half, known, many, moment, ms } from "/format.js";
import { Icon, Sparkline, Strip, Whiskers } from "/plots.js";

export function Overview({ data }) {
  if (!data.models.length) return html`<${Empty} />`;
  const asOf = known(data.event_as_of_ms) ? ` As of ${moment(data.event_as_of_ms)} event time.` : "";
  return html`<main data-testid="overview">
    <${Verdict} verdict=${data.verdict} detail=${data.verdict.detail + asOf} />
    <dl class="vitals">
      ${data.vitals.map((v) => html`<div><dt>${v.title}</dt><dd>${v.value}</dd><small>${v.note}</small></div>`)}
    </dl>
    <div class="row head" aria-hidden="true">
      <span>Model</span><span>Requests · 24 h</span><span>p99 · 24 h</span><span>Drift · 30 days</span>
      <span>Quality on feedback</span><span>Open findings</span>
    </div>
    ${data.models.map((model, i) => html`<${ModelRow} model=${model} first=${i === 0} key=${model.name} />`)}
    <div class="columns">
      <${Findings} findings=${data.findings} named />
      <${Changes} changes=${data.changes} />
    </div>
  </main>`;
}

export const Verdict = ({ verdict, detail }) => html`<section class="verdict">
  <${Icon} level=${verdict.level} />
  <div><h1>${verdict.sentence}</h1>${detail && html`<p>${detail}</p>`}
    ${verdict.causes?.length > 0 && html`<ul class="causes">${verdict.causes.map((cause) => html`<li>${cause}</li>`)}</ul>`}
    ${verdict.action && html`<p class="action">${verdict.action}</p>`}</div>
</section>`;

export const Chip = ({ version }) =>
  version.role === "champion"
    ? html`<span class="chip champion">v${version.number} champion</span>`
    : version.role === "shadow"
      ? html`<span class="chip shadow">v${version.number} shadow ${version.percent} %</span>`
      : version.role === "canary"
        ? html`<span class="chip canary">v${version.number} canary ${version.percent} %</span>`
        : html`<span class="chip">v${version.number}</span>`;

// On a telephone the first model, the worst, is open; of the others three numbers are left.
function ModelRow({ model, first }) {
  return html`<a class="row model ${first ? "first" : ""}" href="#/${encodeURIComponent(model.name)}" data-testid="model-row">
    <div class="who">
      <h2><${Icon} level=${model.verdict.level} />${model.name}</h2>
      <p class="chips">${model.versions.filter((v) => v.role !== "idle").map((v) => html`<${Chip} version=${v} />`)}</p>
      <p>${model.verdict.sentence}</p>
    </div>
    <${Traffic} traffic=${model.traffic} /><${Latency} latency=${model.latency} />
    <${Drift} drift=${model.drift} /><${Quality} quality=${model.quality} /><${Open} alerts=${model.alerts} />
  </a>`;
}

const Fact = ({ kind, title, value, note, faint, children }) => html`<div class="fact ${kind}">
  <small class="title">${title}</small>
  <p class="value-line"><b class=${faint ? "faint" : ""}>${value}</b>${note}</p>
  <div class="picture">${children}</div>
</div>`;

const Traffic = ({ traffic }) => html`<${Fact} kind="traffic" title="Requests" value=${traffic.value} note=${html`<small>${traffic.note}</small>`}>
  <${Sparkline} points=${traffic.points} area label="Requests an hour over 24 hours, now ${traffic.value}." />
<//>`;

const Latency = ({ latency }) => html`<${Fact} kind="latency" title="p99" value=${known(latency.p99_ms) ? ms(latency.p99_ms) : "unknown"}
    faint=${!known(latency.p99_ms)} note=${html`<small>SLO ${latency.slo_ms} ms</small>`}>
  <${Sparkline} points=${latency.points} limit=${latency.slo_ms} label="p99 latency an hour over 24 hours, ${ms(latency.p99_ms)} against an SLO of ${latency.slo_ms} ms." />
<//>`;

function Drift({ drift }) {
  const said = drift.features ? `${drift.changed} of ${drift.features} changed` : "not profiled";
  return html`<${Fact} kind="drift" title="Drift · 30 days" value=${said} faint=${!drift.features}>
    ${drift.strip.length
      ? html`<${Strip} rows=${drift.strip} label="Drift of ${drift.strip.map((row) => row.feature).join(", ")} over 30 days: ${said}." />`
      : html`<div class="unknown">no reference</div>`}
    <small>${drift.names.join(", ")}</small>
  <//>`;
}

function Quality({ quality }) {
  if (!quality)
    return html`<${Fact} kind="quality" title="Quality" value="unknown" faint><div class="unknown">no labels yet</div><//>`;
  const { metric, champion, shadow, reference } = quality;
  const told = `${metric} of the champion ${half(champion)}${shadow ? `, of the shadow ${half(shadow)}` : ""}${known(reference) ? `, at training ${dot(reference)}` : ""}.`;
  return html`<${Fact} kind="quality" title="Quality on feedback" value=${champion ? `${metric} ${half(champion)}` : `${metric} unknown`}
      note=${shadow && html`<b class="challenger-text">${half(shadow)}</b>`}>
    <${Whiskers} quality=${quality} label=${told} />
  <//>`;
}

const Open = ({ alerts }) => html`<div class="open">
  ${alerts.page > 0 && html`<span class="fail-text"><${Icon} level="page" />${many(alerts.page, "page")}</span>`}
  ${alerts.ticket > 0 && html`<span class="warn-text"><${Icon} level="ticket" />${many(alerts.ticket, "ticket")}</span>`}
  ${alerts.digest > 0 && html`<small>+ ${many(alerts.digest, "digest")}</small>`}
  ${alerts.page + alerts.ticket + alerts.digest === 0 && html`<span class="faint none">none</span>`}
</div>`;

export const Findings = ({ findings, named }) => {
  const urgent = findings.filter((f) => f.severity !== "digest").length;
  const title = urgent
    ? html`<h3>Needs a person <span class="count">${urgent}</span><small> and ${findings.length - urgent} to know of</small></h3>`
    : html`<h3>Needs a person <small>none${findings.length ? `, ${findings.length} to know of` : ""}</small></h3>`;
  return html`<section class="findings">${title}
    ${findings.slice(0, 12).map(
      (f) => html`<div class="finding"><${Icon} level=${f.severity} />
        <span>${f.sentence}<small>${named ? html`<a href="#/${encodeURIComponent(f.model)}">${f.model}</a> ` : ""}v${f.version}</small>${f.examples?.length > 0 && html`<small class="examples" title="ids of predictions that show it">${f.examples.map((id) => html`<code>${id}</code> `)}</small>`}</span>
        <span class="value">${f.value}</span><small class="since">since ${day(f.since_ms)}</small></div>`,
    )}
    ${findings.length > 12 && html`<p class="faint more">and ${findings.length - 12} more</p>`}
  </section>`;
};

const thisYear = (time) => new Date(time).getUTCFullYear() === new Date().getUTCFullYear();
const when = (time) => (thisYear(time) ? moment(time).replace(/ \d{4},/, "") : day(time));

const Changes = ({ changes }) => html`<section class="changes">
  <h3>What changed</h3>
  ${changes.map(
    (c) => html`<div class="change"><span class="faint" title=${moment(c.at_ms)}>${when(c.at_ms)}</span><a href="#/${encodeURIComponent(c.model)}/compare">${c.model}</a><b>${c.what}</b>
      <span class="faint why">${c.why && `“${c.why}”`}</span><span class="faint by">${c.who}</span></div>`,
  )}
  ${!changes.length && html`<p class="faint">no route was changed yet</p>`}
</section>`;

const Empty = () => html`<main data-testid="overview">
  <${Verdict} verdict=${{ level: "unknown", sentence: "No model yet." }} detail="Two commands bring the first one; this page fills by itself." />
  <pre><code>slipstream up
slipstream push MODEL FILE.onnx --reference data.parquet --target COLUMN</code></pre>
</main>`;

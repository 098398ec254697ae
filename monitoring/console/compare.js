// May the other version overtake? Gates, evidence on the same requests, and the card to decide in.
import { html, useMemo, useState } from "/vendor/htm-preact.js";
import { Decide, useCard } from "/decide.js";
import { count, dot, known, many, moment, ms, percent, points } from "/format.js";
import { Icon, Lines, Ticks, Whisker, across, rise, round } from "/plots.js";

export function Compare({ data, failed, reload }) {
  const { route, candidate, comparison } = data;
  const names = { champion: `v${route.champion}`, candidate: `v${candidate}` };
  const [card, set] = useCard();
  const decide = html`<${Decide} data=${data} failed=${failed} reload=${reload} card=${card} set=${set} />`;
  if (!candidate)
    return html`<main data-testid="compare">
      <${Head} data=${data} names=${names} />
      <${Commands} model=${data.model} />
      <div class="apart">${decide}<${Timeline} changes=${data.changes} /></div>
    </main>`;
  return html`<main data-testid="compare">
    <${Head} data=${data} names=${names} />
    ${data.rollout && html`<${Ladder} data=${data} />`}
    <div class="decision">
      <div><${Gates} data=${data} names=${names} />${decide}</div>
      <div>
        <${Closing} data=${data} names=${names} />
        ${comparison
          ? html`<div class="pair"><div><${Agreement} found=${comparison} /><${Scores} found=${comparison} names=${names} /></div>
              <div><${Pairs} found=${comparison} names=${names} /><${Latencies} found=${comparison} names=${names} /></div></div>`
          : html`<section><h3>On the same requests</h3><div class="unknown">no request was answered by both yet</div></section>`}
      </div>
    </div>
    <${Slices} data=${data} names=${names} />
    <${Rated} data=${data} names=${names} />
    <div class="apart"><${Examples} data=${data} names=${names} /><${Timeline} changes=${data.changes} /></div>
  </main>`;
}

// --- the sentence and the way ---------------------------------------------------------------------

const ended = (sentence) => sentence.replace(/\.?$/, ".");

function Head({ data, names }) {
  const { verdict, rollout, candidate } = data;
  const said = !candidate
    ? ["unknown", `No candidate: ${names.champion} answers alone.`]
    : !rollout
      ? ["unknown", `Nobody judges ${names.candidate}: it ${data.route.canary ? "answers" : "rides along"} by hand, without a rollout.`]
      : verdict
        ? [verdict.status, ended(verdict.sentence)]
        : ["unknown", `No verdict on ${names.candidate} yet.`];
  return html`<section class="verdict"><${Icon} level=${said[0]} /><div><h1>${said[1]}</h1>
    <p data-testid="vitals">${(candidate ? vitals(data, names) : lone(data)).join(" · ")}</p></div></section>`;
}

const lone = ({ changes: [last] }) => (last ? [`Last change: ${happened(last)}, by ${last.who}, ${moment(last.at_ms)} UTC`] : ["No route was changed yet"]);

function vitals({ verdict, rollout, route, applied, workers, comparison }, names) {
  const told = [route.canary ? `${names.candidate} answers ${route.weight / 100} % of requests` : `${names.candidate} sees ${route.shadow_percent} % of requests and answers nobody`];
  if (rollout) told.push(`policy ${rollout.policy}, ${rollout.paused ? "paused" : rollout.automatic ? "moved by the monitor" : "moved by hand"}`);
  if (verdict) {
    const blocking = verdict.gates.filter((gate) => gate.blocks);
    const of = (status) => blocking.filter((gate) => gate.status === status).length;
    const rest = of("insufficient");
    told.push(`${of("pass")} of ${many(blocking.length, "gate")} pass, ${of("fail") || "none"} ${of("fail") > 1 ? "fail" : "fails"}, ${rest || "none"} ${rest > 1 ? "lack" : "lacks"} evidence`);
    const missing = ["requests", "labels"].map((of) => [Math.max(0, ...blocking.filter((gate) => gate.of === of).map((gate) => gate.needs)), of]).filter(([n]) => n);
    if (missing.length) told.push(`needs ${missing.map(([n, of]) => `${count(n)} more ${of}`).join(" and ")}`);
  }
  if (applied < workers || !workers) told.push(`applied by ${applied} of ${workers} workers`);
  if (comparison?.accuracy.difference) {
    const { value, low, high } = comparison.accuracy.difference;
    told.push(`accuracy ${points(value)} points against ${names.champion} (${points(low)} to ${points(high)})`);
  }
  return told;
}

function Ladder({ data: { rollout, changes } }) {
  const steps = ["shadow", ...rollout.steps.map((weight) => `${weight / 100} %`), "champion"];
  const entered = changes.find((one) => ["start", "advance"].includes(one.action));
  return html`<ol class="ladder" aria-label="Steps of the rollout">
    ${steps.map((name, i) => html`<li class=${i < rollout.step ? "done" : i === rollout.step ? "now" : ""} aria-current=${i === rollout.step ? "step" : null}>
      <i></i><span>${name}</span>${i === rollout.step && html`<small>${rollout.paused ? "paused" : entered ? `since ${moment(entered.at_ms).replace(/ \d{4},/, "")}` : "now"}</small>`}</li>`)}
  </ol>`;
}

const Commands = ({ model }) => html`<p>Two commands bring one, a shadow that only rides along or a rollout on evidence; so does the card below.</p>
  <pre class="commands"><code>slipstream shadow ${model} VERSION
slipstream rollout start ${model} VERSION</code></pre>`;

// --- gates ----------------------------------------------------------------------------------------

const plain = (value) => count(Math.round(value));
const NAMES = {
  integrity: ["Integrity", (v) => percent(v, 1), (v, shadow) => `${shadow ? "≥" : "meant"} ${percent(v, shadow ? 0 : 1)}`],
  evidence: ["Evidence", plain, (v) => `≥ ${plain(v)}`],
  errors: ["Errors", (v) => percent(v, 2), (v) => `≤ ${percent(v, 1)}`, "above"],
  latency: ["Latency", ms, (v) => `≤ ${ms(v)}`, "above"],
  agreement: ["Agreement", (v) => percent(v, 1), (v) => `≥ ${percent(v)}`, "below"],
  outputs: ["Outputs", (v) => dot(v, 2), (v) => `≤ ${dot(v, 2)}`, "above"],
  accuracy: ["Accuracy", (v) => `${points(v)} pt`, (v) => `≥ ${points(v)} pt`, "below"],
  approval: ["Approval", String, String],
};

function Gates({ data, names }) {
  const gates = data.verdict?.gates ?? [];
  const blocking = gates.filter((gate) => gate.blocks), telling = gates.filter((gate) => !gate.blocks);
  if (!data.rollout)
    return html`<section class="gates"><h3>Gates</h3><div class="unknown">gates judge a rollout; ${names.candidate} was set by hand</div></section>`;
  const shadow = data.verdict?.stage === "shadow";
  const row = (gate) => html`<${Gate} gate=${gate} shadow=${shadow} key=${gate.name} />`;
  return html`<section class="gates" data-testid="gates">
    <h3>Gates of this step <small>${data.rollout.automatic ? "one fail rolls back, one gap holds" : "moved by hand: they tell, and stand against a promotion"}</small></h3>
    ${gates.length ? html`<ul>${blocking.map(row)}</ul>` : html`<div class="unknown">the monitor has not looked at this step yet</div>`}
    ${telling.length > 0 && html`<p class="faint">Tells, does not block</p><ul>${telling.map(row)}</ul>`}
  </section>`;
}

function Gate({ gate, shadow }) {
  const [title, value, limit, bad] = NAMES[gate.name] ?? [gate.name, String, String];
  const needs = gate.needs ? `needs ${count(gate.needs)} more ${gate.of}` : "";
  const beyond = !gate.blocks && { pass: "holds", fail: "beyond", insufficient: "open" }[gate.status];
  return html`<li class=${gate.status} data-gate=${gate.name}>
    <${Icon} level=${gate.blocks ? gate.status : "tells"} label=${gate.blocks ? gate.status : `only tells: ${beyond}`} />
    <div><b>${title}</b><small>${gate.sentence}</small>${needs && html`<small class="needs">${needs}</small>`}</div>
    <${Held} gate=${gate} bad=${bad} title=${title} value=${value} />
    <b class="value">${known(gate.value) ? value(gate.value) : ""}</b>
    <span class="limit-text">${known(gate.limit) && limit(gate.limit, shadow)}${beyond && html`<small>${beyond}</small>`}</span>
  </li>`;
}

// The interval against its limit; the side that fails is tinted where it stops a rollout.
function Held({ gate, bad, title, value }) {
  if (!known(gate.low) || !known(gate.limit) || !bad) return html`<span class="held"></span>`;
  const ends = [gate.value, gate.low, gate.high, gate.limit].filter(known);
  const low = Math.min(...ends), high = Math.max(...ends);
  const pad = (high - low) * 0.14 || 0.01;
  const axis = [low - pad, high + pad];
  const at = rise(gate.limit, axis) * 100;
  const estimate = { value: gate.value, low: gate.low, high: gate.high ?? axis[1] };
  const told = `${title}: ${value(gate.value)}, ${value(gate.low)} ${known(gate.high) ? `to ${value(gate.high)}` : "or more"}, limit ${value(gate.limit)}.`;
  return html`<svg class="whiskers held" width="100%" height="18" role="img" aria-label=${told}>
    ${gate.blocks && html`<rect x="${bad === "above" ? at : 0}%" y="0" width="${bad === "above" ? 100 - at : at}%" height="18" class="harm" />`}
    <line x1="${at}%" x2="${at}%" y1="0" y2="18" class="limit" />
    <${Whisker} estimate=${estimate} axis=${axis} y="9" kind="challenger" />
  </svg>`;
}

// --- the closing interval -------------------------------------------------------------------------

function Closing({ data, names }) {
  // One point for a number of labels: the newest. Without labels there is no place on the axis.
  const shown = useMemo(() => [...new Map(data.closing.filter((one) => one.labels > 0).map((one) => [one.labels, one])).values()].sort((a, b) => a.labels - b.labels), [data.closing]);
  const title = html`<h3>Is ${names.candidate} right more often? <small>difference in points, interval valid at every look</small></h3>`;
  if (shown.length < 2) return html`<section class="closing">${title}<${Open} data=${data} have=${shown.length} /></section>`;
  const labels = shown.map((one) => one.labels);
  const limit = shown.at(-1).limit;
  const high = Math.min(Math.max(...shown.map((one) => one.high ?? 1), 0.005), 1);
  // The zone of harm has room for its words.
  const low = Math.min(Math.max(Math.min(...shown.map((one) => one.low)), -1), limit - (high - limit) * 0.6);
  const range = [low, high + (high - low) * 0.08];
  const series = [{ values: shown.map((one) => one.value), low: shown.map((one) => one.low), high: shown.map((one) => one.high ?? 1), kind: "challenger", solid: true }];
  const margin = `${(-limit * 100).toFixed(1).replace(/\.0$/, "")} point${limit === -0.01 ? "" : "s"}`;
  const last = shown.at(-1);
  const told = `${names.candidate} against ${names.champion}: ${points(last.value)} points, ${points(last.low)} to ${points(last.high)} at ${count(last.labels)} labelled pairs; the limit is ${points(limit)}.`;
  const marks = [{ at: 0, text: `above 0: ${names.candidate} right more often` }, { at: limit, kind: "harm", foot: true, text: `worse than the margin of ${margin}` }, ...decided(shown, limit, margin, names)];
  return html`<section class="closing">${title}
    <div class="room"><${Lines} of=${JSON.stringify(shown)} x=${labels} series=${series} height=${230} range=${range} ticks=${round(range)} text=${(v) => points(v).replace(/\.0$/, "")} marks=${marks} label=${told} />
      <${Labels} labels=${labels} /></div>
    <details><summary>table</summary><div class="scrolled"><table class="free"><thead><tr><th>labelled pairs</th><th>points</th><th>low</th><th>high</th><th>stage</th></tr></thead>
      <tbody>${shown.slice(-20).map((one) => html`<tr><td>${count(one.labels)}</td><td>${points(one.value)}</td><td>${points(one.low)}</td><td>${points(one.high)}</td><td>${one.stage}</td></tr>`)}</tbody></table></div></details>
  </section>`;
}

// The looks from which on the interval has left the margin, and zero, for as long as it did so far.
function decided(shown, limit, margin, names) {
  const from = (holds) => shown[shown.findLastIndex((one) => !holds(one)) + 1];
  const found = [
    [from((one) => one.low >= limit), "low", `not worse than ${margin}`],
    [from((one) => one.low > 0), "low", `better than ${names.champion}`],
    [from((one) => known(one.high) && one.high < 0), "high", `worse than ${names.champion}`],
  ].filter(([one]) => one);
  return found.map(([one, side, text], i) => ({ kind: "label", x: one.labels, at: one[side], down: 28 + 22 * i, text: `${count(one.labels)} labels: ${text}` }));
}

function Open({ data, have }) {
  const gate = data.verdict?.gates.find((one) => one.name === "accuracy");
  const needs = gate?.needs ? ` Needs ${count(gate.needs)} more ${gate.of}.` : "";
  const said = !data.rollout
    ? "Only a rollout's verdicts are kept, so there is no interval to follow."
    : have === 1 ? "One verdict with an interval so far; the line begins with the second." : `No interval yet. ${gate ? ended(gate.sentence) : "No verdict came yet."}${needs}`;
  return html`<div class="unknown pale" role="img" aria-label=${said}>${said}</div>`;
}

function Labels({ labels }) {
  const range = [labels[0], labels.at(-1)];
  const inside = [1, 3].flatMap((by) => [10, 100, 1e3, 1e4, 1e5, 1e6].map((ten) => by * ten)).sort((a, b) => a - b)
    .filter((at) => rise(at, range, true) > 0.16 && rise(at, range, true) < 0.72 && at > range[0] && at < range[1]);
  return html`<div class="labels" aria-hidden="true"><span style="left:0">${count(range[0])}</span>
    ${inside.map((at) => html`<span class="inner" style="left:${rise(at, range, true) * 100}%">${count(at)}</span>`)}
    <span class="end">${count(range[1])} labelled pairs · log</span></div>`;
}

// --- on the same requests -------------------------------------------------------------------------

function Agreement({ found }) {
  const { agreement, bound } = found;
  if (!agreement) return null;
  const low = Math.max(Math.min(0.9, agreement.low - (1 - agreement.low) * 0.2), 0);
  const axis = [Math.floor(low * 20) / 20, 1];
  return html`<section><h3>Same answer? <small>${count(found.compared)} rows, ${found.days} days</small></h3>
    <svg class="whiskers" width="100%" height="34" role="img" aria-label="They agree on ${percent(agreement.value, 1)}, ${percent(agreement.low, 1)} to ${percent(agreement.high, 1)}.">
      <line x1="0" x2="100%" y1="17" y2="17" class="hair" /><${Whisker} estimate=${agreement} axis=${axis} y="9" kind="challenger" />
      <text x="0" y="30">${percent(axis[0])}</text><text x="100%" y="30" text-anchor="end">100 %</text></svg>
    <p>They agree on <b>${percent(agreement.value, 1)}</b> (${percent(agreement.low, 1)} to ${percent(agreement.high, 1)}).
      Accuracies cannot differ by more than the share on which they disagree: <b>${(bound * 100).toFixed(1)} points</b> at most.</p>
    ${found.non_finite > 0 && html`<p class="fail-text">${many(found.non_finite, "score")} came back as no number.</p>`}
  </section>`;
}

function Pairs({ found, names }) {
  const { right, labels, evidence, accuracy } = found;
  const title = html`<h3>Who was right? <small>${count(labels)} labelled rows</small></h3>`;
  if (!labels) return html`<section>${title}<div class="unknown">no labels yet: send them to POST /v2/models/…/feedback</div></section>`;
  const cell = (kind, n, name) => html`<td class=${kind}><b>${count(n)}</b><small>${name}</small></td>`;
  const alone = right.only_champion + right.only_candidate;
  return html`<section data-testid="pairs">${title}
    <table class="four" aria-label="Both right ${right.both}, only ${names.champion} ${right.only_champion}, only ${names.candidate} ${right.only_candidate}, neither ${right.neither}.">
      <tr>${cell("", right.both, "both right")}${cell("champion", right.only_champion, `only ${names.champion}`)}</tr>
      <tr>${cell("challenger", right.only_candidate, `only ${names.candidate}`)}${cell("", right.neither, "neither")}</tr>
    </table>
    <p>${winner(evidence, alone, labels, names)}</p>
    ${accuracy.champion && accuracy.candidate && html`<p class="faint">right: ${names.champion} ${interval(accuracy.champion)}, ${names.candidate} ${interval(accuracy.candidate)}</p>`}
  </section>`;
}

const interval = ({ value, low, high }) => `${percent(value, 1)} (${percent(low, 1)} to ${percent(high, 1)})`;
const chance = (p) => (p < 0.001 ? "below .001" : `at most ${dot(p, p < 0.1 ? 3 : 2)}`);

function winner({ p, winner: one, more }, alone, labels, names) {
  if (!alone) return "On no labelled row was just one of them right, so nothing tells them apart so far.";
  if (one) return html`<b>${names[one]}</b> is right more often so far: were they equal, the chance of such a split is ${chance(p)}, however often one looks.`;
  const rows = more && Math.ceil((more / alone) * labels);
  const rest = known(more) ? ` About ${count(rows)} more labels decide it if the split stays.` : " At this split no number of labels in sight decides it.";
  return `Undecided so far: were they equal, the chance of such a split is ${chance(p)}.${rest}`;
}

function Scores({ found: { scores }, names }) {
  const title = html`<h3>Both scores <small>shares of the same rows</small></h3>`;
  if (!scores.champion.length || !scores.candidate.length) return html`<section>${title}<div class="unknown">no scores between 0 and 1 to compare</div></section>`;
  const n = scores.bins;
  const top = Math.max(...scores.champion, ...scores.candidate);
  const y = (value) => 96 - (value / top) * 88;
  const outline = (values) => `M0,96${values.map((value, i) => `L${i},${y(value)}H${i + 1}`).join("")}V96`;
  const mean = (values) => values.reduce((sum, share, i) => sum + share * ((i + 0.5) / n), 0);
  const told = `Scores: ${names.champion} ${dot(mean(scores.champion), 2)} on average, ${names.candidate} ${dot(mean(scores.candidate), 2)}.`;
  return html`<section>${title}
    <svg class="scores" viewBox="0 0 ${n} 98" width="100%" height="98" preserveAspectRatio="none" role="img" aria-label=${told}>
      <path d=${outline(scores.champion)} class="champion" /><path d=${outline(scores.candidate)} class="challenger" /></svg>
    <div class="ends" aria-hidden="true"><span>0</span><span>.5</span><span>1</span></div>
    <p class="legend"><span><i class="key champion"></i>${names.champion} mean ${dot(mean(scores.champion), 2)}</span><span class="challenger-text"><i class="key challenger"></i>${names.candidate} mean ${dot(mean(scores.candidate), 2)}</span></p>
  </section>`;
}

function Latencies({ found: { latency }, names }) {
  const all = Object.values(latency).flatMap((one) => [one.p50, one.p95, one.p99]).filter((value) => value > 0);
  const title = html`<h3>Time of the model alone <small>ms · log</small></h3>`;
  if (!all.length) return html`<section>${title}<div class="unknown">no time was measured yet</div></section>`;
  const axis = [Math.min(...all) * 0.8, Math.max(...all) * 1.25];
  const at = (value) => `${rise(value, axis, true) * 100}%`;
  const row = (kind, one, name) => html`<tr class=${kind === "candidate" ? "challenger-text" : ""}><th>${name}</th>
    <td>${short(one.p50)}</td><td>${short(one.p95)}</td><td>${short(one.p99)}</td><td class="line">${known(one.p50) &&
      html`<svg class="whiskers" width="100%" height="16" role="img" aria-label="${name}: half within ${ms(one.p50)}, 99 % within ${ms(one.p99)}."><g class=${kind === "candidate" ? "challenger" : "champion"}>
        <line x1=${at(one.p50)} x2=${at(one.p99)} y1="8" y2="8" /><line x1=${at(one.p95)} x2=${at(one.p95)} y1="4" y2="12" /><line x1=${at(one.p99)} x2=${at(one.p99)} y1="4" y2="12" /><circle cx=${at(one.p50)} cy="8" r="3.5" /></g></svg>`}</td></tr>`;
  return html`<section>${title}
    <table class="free"><thead><tr><th></th><th>p50</th><th>p95</th><th>p99</th><th></th></tr></thead>
      <tbody>${row("champion", latency.champion, names.champion)}${row("candidate", latency.candidate, names.candidate)}</tbody></table>
    <p class="faint">A shadow runs at low priority, so its time only tells.</p>
  </section>`;
}

const short = (value) => (known(value) ? dot(value, value < 1 ? 2 : 1) : "–");

// --- who is right where ------------------------------------------------------------------------------

function Rated({ data, names }) {
  const { rated } = data;
  if (!rated?.length) return null;
  const points = (value) => `${value > 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(1)}`;
  return html`<section class="where-differ" data-testid="rated">
    <h3>Who is right where? <small>${many(rated.length, "slice")} in which one is right more often, 5 % false discoveries</small></h3>
    <table class="free"><thead><tr><th>slice</th><th>${names.champion}</th><th>${names.candidate}</th><th>points</th><th class="wide-only">95 %</th><th class="wide-only">labels</th></tr></thead>
    <tbody>${rated.map((one) => html`<tr key=${`${one.feature} ${one.where}`}><th>${one.feature} <span>${one.where}</span></th>
      <td>${percent(one.champion, 1)}</td><td>${percent(one.candidate, 1)}</td><td><b>${points(one.difference)}</b></td>
      <td class="wide-only faint">${points(one.low)} to ${points(one.high)}</td><td class="wide-only faint">${count(one.rows)}</td></tr>`)}</tbody></table>
  </section>`;
}

// --- where they differ ----------------------------------------------------------------------------

function Slices({ data, names }) {
  const { slices, comparison } = data;
  const overall = comparison?.agreement ? 1 - comparison.agreement.value : null;
  if (!slices.length)
    return html`<section class="where-differ"><h3>Where do they differ?</h3><p class="faint">No slice of one feature stands out so far (5 % false discoveries).</p></section>`;
  const axis = [0, Math.max(...slices.map((one) => one.high), overall ?? 0) * 1.02];
  return html`<section class="where-differ" data-testid="slices">
    <h3>Where do they differ? <small>${many(slices.length, "slice")} of one feature ${slices.length > 1 ? "stand" : "stands"} out, 5 % false discoveries${known(overall) ? `; black tick: all requests, ${percent(overall, 1)}` : ""}</small></h3>
    <table class="free"><thead><tr><th>slice</th><th class="wide-only">share</th><th class="picture">answers that differ</th><th>rate</th><th class="wide-only">95 %</th><th>×</th><th class="wide-only">rows</th></tr></thead>
    <tbody>${slices.map((one) => html`<tr key=${`${one.feature} ${one.where}`}><th>${one.feature} <span>${one.where.replace(/(above|at most) -/g, "$1 −")}</span></th><td class="wide-only faint">${percent(one.share, 1)}</td>
      <td class="picture"><svg class="whiskers" width="100%" height="18" role="img" aria-label="${one.feature} ${one.where}: ${percent(one.rate)} differ, ${percent(one.elsewhere)} elsewhere.">
        <rect x="0" y="3" width="100%" height="12" class="ground" /><rect x="0" y="3" width=${across(one.rate, axis)} height="12" class="share" />
        <line x1=${across(one.low, axis)} x2=${across(one.high, axis)} y1="9" y2="9" class="doubt" />
        ${known(overall) && html`<line x1=${across(overall, axis)} x2=${across(overall, axis)} y1="1" y2="17" class="tick-line" />`}</svg></td>
      <td><b>${percent(one.rate)}</b></td><td class="wide-only faint">${percent(one.low)} to ${percent(one.high)}</td>
      <td class="faint">${one.elsewhere > 0 ? (one.rate / one.elsewhere).toFixed(1) : "–"}</td><td class="wide-only faint">${count(one.rows)}</td></tr>`)}</tbody></table>
  </section>`;
}

function Examples({ data, names }) {
  return html`<section data-testid="examples"><h3>Examples that differ <small>newest first; scores</small></h3>
    ${data.examples.length
      ? html`<table class="free examples"><thead><tr><th>prediction id</th><th>row</th><th>${names.champion}</th><th>${names.candidate}</th></tr></thead>
          <tbody>${data.examples.map((one) => html`<tr key=${`${one.prediction_id}:${one.row}`}><th><${Copied} text=${one.prediction_id} /></th><td>${one.row}</td><td>${said(one.champion)}</td><td class="challenger-text">${said(one.candidate)}</td></tr>`)}</tbody></table>`
      : html`<p class="faint">none was kept yet</p>`}
  </section>`;
}

const said = (value) => (known(value) ? dot(value, Number.isInteger(value) ? 0 : 3) : "no number");

// Without the right to the clipboard the id is selected instead.
function Copied({ text }) {
  const [done, setDone] = useState(false);
  const copy = async (event) => {
    const code = event.currentTarget.querySelector("code");
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  };
  return html`<button class="copy" onClick=${copy} title="copy" aria-label="copy ${text}"><code>${text}</code><small>${done ? "copied" : "copy"}</small></button>`;
}

// --- what was decided -----------------------------------------------------------------------------

const share = (weight) => `${weight / 100} %`;
function happened({ action, before, after }) {
  switch (action) {
    case "start": return `v${after.rollout?.version} starts as a shadow`;
    case "advance": return `v${after.canary} answers ${share(after.weight)}`;
    case "promote": return `v${after.champion} is champion`;
    case "push": return `v${after.champion} is the first champion`;
    case "rollback": return before && before.champion !== after.champion ? `back to v${after.champion}` : `v${before?.rollout?.version ?? before?.canary} leaves, v${after.champion} answers alone`;
    case "shadow": return known(after.shadow) ? `v${after.shadow} shadows ${after.shadow_percent} %` : "the shadow ends";
    case "canary": return known(after.canary) ? `v${after.canary} answers ${share(after.weight)}` : "the canary ends";
    case "pause": return "paused";
    case "resume": return "resumed";
    default: return action;
  }
}

function Timeline({ changes }) {
  return html`<section data-testid="changes"><h3>What was decided <small>newest first, UTC</small></h3>
    <ol class="decided">${changes.map((one) => html`<li key=${one.after.revision}>
      <span class="faint">${moment(one.at_ms).replace(/ \d{4},/, "")}</span><span class="faint">rev ${one.after.revision}</span>
      <div><b>${happened(one)}</b> <span class="faint">by ${one.who}</span>${one.why && html`<p>“${one.why}”</p>`}
        ${one.evidence && html`<small>evidence <code>${one.evidence}</code></small>`}</div></li>`)}</ol>
    ${!changes.length && html`<p class="faint">no route was changed yet</p>`}
  </section>`;
}

// The card in which a person decides: reason first, then a dialog that says what will change.
import { html, useLayoutEffect, useRef, useState } from "/vendor/htm-preact.js";
import { post } from "/api.js";
import { clock, count, many } from "/format.js";
import { Icon } from "/plots.js";

const POLICIES = {
  improvement: "meant to differ: a retrained or another model",
  equivalent: "meant to say the same: a refactor, a quantisation",
};
// Where pages come over plain http from another host, randomUUID is not there.
const fresh = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

// What was typed and told. The page keeps it, because the card moves where a rollout begins or ends.
export function useCard() {
  const [card, change] = useState({ reason: "", missing: false, said: null, asked: null, version: null, policy: "improvement", automatic: true });
  return [card, (more) => change((old) => ({ ...old, ...more }))];
}

export function Decide({ data, failed, reload, card, set }) {
  const { reason, missing, said, asked } = card;
  const field = useRef(null);
  const others = data.versions.filter((number) => number !== data.route.champion);
  const chosen = { ...card, version: others.includes(card.version) ? card.version : others.at(-1) };
  const may = legal(data, failed, others);

  const send = async (question, more = {}) => {
    const { revision } = question.data.route;
    const body = { ...question.body, reason: question.reason, revision, ...more };
    const after = await post(`models/${encodeURIComponent(data.model)}/rollout`, body, question.once);
    set({ reason: "", said: { good: true, text: `Done: revision ${after.revision} stands.` } });
  };
  const ask = (action) => {
    set({ said: null, missing: !reason.trim() });
    if (!reason.trim()) return field.current.focus();
    const question = { ...described(action, data, chosen), action, data, reason: reason.trim(), once: fresh() };
    if (action !== "rollback") return set({ asked: question });
    send(question).then(reload, (error) => (error.status === 401 ? set({ asked: { ...question, refused: error.message } }) : refuse(error)));
  };
  const refuse = (error) => (set({ said: { text: error.message } }), reload());
  const button = (action, text, kind = "") => may.has(action) && html`<button type="button" class="act ${kind}" onClick=${() => ask(action)}>${text}</button>`;
  const two = `v${data.candidate}`;

  return html`<section class="decide" data-testid="decide" aria-label="Decide">
    <h3>Decide <small>the reason goes to the audit with the evidence</small></h3>
    <input ref=${field} type="text" value=${reason} maxlength="500" aria-label="reason" placeholder="Why? For instance: the trees take heat better" aria-invalid=${missing ? "true" : null}
      onInput=${(event) => set({ reason: event.target.value, missing: false })} />
    ${missing && html`<p class="warn-text" role="alert">A reason first.</p>`}
    ${may.has("start") && html`<${Start} form=${chosen} others=${others} set=${set} />`}
    <div class="acts">
      ${button("start", `Start rollout of v${chosen.version}…`, "first")}
      ${button("advance", `Advance to ${next(data)}…`, "first")}
      ${button("resume", "Resume…", "first")}${button("pause", "Pause…")}
      ${button("promote", `Promote ${two}…`)}
      ${button("rollback", back(data), "harmful")}
    </div>
    ${!may.size && html`<p class="faint">${others.length ? "Nothing can be changed from here." : "There is one version only; push another to compare it."}</p>`}
    ${failed && html`<p class="warn-text">The monitor does not answer, so nothing can be advanced. A roll back works without it: <code>slipstream rollback ${data.model} --reason …</code></p>`}
    ${said && html`<p class=${said.good ? "" : "fail-text"} role=${said.good ? "status" : "alert"}>${said.text}</p>`}
    ${asked && html`<${Ask} question=${asked} send=${send} close=${() => set({ asked: null })} refuse=${refuse} reload=${reload} />`}
  </section>`;
}

function Start({ form, others, set }) {
  return html`<div class="start">
    <label>version<select aria-label="version" onChange=${(event) => set({ version: Number(event.target.value) })}>
      ${others.map((number) => html`<option value=${number} selected=${number === form.version}>v${number}</option>`)}</select></label>
    <label>policy<select aria-label="policy" onChange=${(event) => set({ policy: event.target.value })}>
      ${Object.keys(POLICIES).map((name) => html`<option value=${name} selected=${name === form.policy}>${name}</option>`)}</select></label>
    <label>moves<select aria-label="moves" onChange=${(event) => set({ automatic: event.target.value === "itself" })}>
      <option value="itself" selected=${form.automatic}>by itself</option><option value="hand" selected=${!form.automatic}>by hand</option></select></label>
    <small>${form.policy}: ${POLICIES[form.policy]}</small>
  </div>`;
}

// What the server calls legal, less what makes no sense here. A roll back stays while the monitor
// does not answer: it may only be this page's last question that failed.
function legal({ legal: told, route, rollout, candidate }, failed, others) {
  const may = new Set(told.split(", ").map((words) => words.split(" ")[0]));
  const keep = {
    start: !failed && route.canary === null && others.length > 0,
    advance: !failed && rollout && rollout.step < rollout.steps.length,
    pause: !failed,
    resume: !failed,
    promote: !failed && candidate !== null && (rollout !== null || route.canary !== null),
    rollback: true,
  };
  return new Set(Object.keys(keep).filter((action) => may.has(action) && keep[action]));
}

const next = ({ rollout }) => (rollout ? `${rollout.steps[rollout.step] / 100} %` : "");
const ends = ({ route, rollout }) => rollout !== null || route.canary !== null;
const back = (data) => (ends(data) ? "Roll back" : `Roll back to v${data.route.previous}`);

// --- what will change -----------------------------------------------------------------------------

function described(action, data, form) {
  const { route, rollout, candidate, model } = data;
  const one = `v${route.champion}`, two = `v${action === "start" ? form.version : candidate}`;
  const undo = `slipstream rollback ${model} --reason …`;
  switch (action) {
    case "start":
      return {
        title: `Start the rollout of ${two}?`,
        body: { action, version: form.version, policy: form.policy, automatic: form.automatic },
        change: `${two} sees a copy of every request as a shadow; ${one} goes on answering all of them. Then come 1, 5, 25 and 50 %. ${form.automatic ? "The monitor goes on where every gate passes, and rolls back where one fails." : "Nothing moves until a person moves it."}`,
        undo: [`Roll back: ${two} leaves at once.`, undo],
      };
    case "advance":
      return {
        title: `Let ${two} answer ${next(data)}?`,
        body: { action },
        change: `${two} answers ${next(data)} of the requests, ${one} the rest; a caller stays with one version. Counting for this step begins anew.`,
        undo: [`Roll back: ${one} answers everything again.`, undo],
        open: gatesAgainst(action, data),
      };
    case "promote":
      return {
        title: `Promote ${two}?`,
        body: { action, version: candidate },
        change: `${two} becomes champion and answers every request${rollout ? "; the rollout ends" : ""}. ${one} stays as the previous champion.`,
        undo: [`Roll back: ${one} is champion again.`, undo],
        open: gatesAgainst(action, data),
      };
    case "pause":
      return {
        title: "Pause the rollout?",
        body: { action },
        change: `Traffic stays as it is: nothing goes forward.${rollout.automatic ? " A failing gate still rolls back." : ""}`,
        undo: ["Resume.", `slipstream resume ${model} --reason …`],
      };
    case "resume":
      return {
        title: "Resume the rollout?",
        body: { action },
        change: rollout.automatic ? "The monitor goes on as soon as every gate passes." : "It can be advanced again, by hand.",
        undo: ["Pause.", `slipstream pause ${model} --reason …`],
      };
    default:
      return {
        title: `${back(data)}?`,
        body: { action: "rollback" },
        change: ends(data) ? `${two} leaves; ${one} answers every request.` : `v${route.previous} answers every request again, in place of ${one}.`,
        undo: [ends(data) ? "Start a rollout again; it begins with its shadow." : "Roll back once more.", ends(data) ? `slipstream rollout start ${model} VERSION` : undo],
      };
  }
}

// Gates that a step goes against: the server asks the same before it writes.
function gatesAgainst(action, { rollout, verdict }) {
  if (!rollout) return [];
  if (!verdict) return [{ name: "verdict", status: "insufficient", sentence: "there is no verdict yet" }];
  return verdict.gates.filter((gate) => gate.blocks && gate.status !== "pass" && !(gate.name === "approval" && action === "promote"));
}

function Ask({ question, send, close, refuse, reload }) {
  const { data, open = [], refused } = question;
  const dialog = useRef(null);
  const [force, setForce] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(refused ? { status: 401, message: refused } : null);
  const [token, setToken] = useState("");
  useLayoutEffect(() => dialog.current.showModal(), []);

  // The page may only move again once the dialog is gone.
  const leave = (then) => (dialog.current.close(), then?.());
  const confirm = async (event) => {
    event.preventDefault();
    if (token) sessionStorage.setItem("token", token);
    setBusy(true);
    try {
      await send(question, force ? { force } : {});
      leave();
    } catch (problem) {
      if (problem.status === 409) return leave(() => refuse(problem));
      if (problem.status === 401) sessionStorage.removeItem("token");
      setError(problem);
      setBusy(false);
    }
  };
  const { revision } = data.route;
  return html`<dialog ref=${dialog} onClose=${() => (close(), reload())} aria-labelledby="asked"><article>
    <form onSubmit=${confirm}>
      <h2 id="asked">${question.title}</h2>
      <dl>
        <div><dt>changes</dt><dd>${question.change}</dd></div>
        <div><dt>on</dt><dd>route revision ${revision}, which ${many(data.workers, "worker")} ${data.workers === 1 ? "reads" : "read"}; it becomes ${revision + 1}</dd></div>
        <div><dt>evidence</dt><dd>${evidence(data)}</dd></div>
        <div><dt>reason</dt><dd>“${question.reason}”</dd></div>
        <div><dt>undo</dt><dd>${question.undo[0]} <code>${question.undo[1]}</code></dd></div>
      </dl>
      ${open.length > 0 && html`<div class="against"><p><b>Against ${many(open.length, "open gate")}</b></p>
        <ul>${open.map((gate) => html`<li><${Icon} level=${gate.status} /><span><b>${gate.name}</b> ${gate.sentence}${gate.needs ? `; needs ${count(gate.needs)} more ${gate.of}` : ""}</span></li>`)}</ul>
        <label><input type="checkbox" checked=${force} onChange=${(event) => setForce(event.target.checked)} />Force it: the audit keeps these gates with the reason</label></div>`}
      ${error && html`<p class="fail-text" role="alert">${error.message}</p>`}
      ${error?.status === 401 && html`<label>token<input type="password" autocomplete="off" value=${token} onInput=${(event) => setToken(event.target.value)} /></label>`}
      <footer><button type="button" class="act" onClick=${() => leave()}>Cancel</button>
        <button type="submit" class="act ${open.length || question.action === "rollback" ? "harmful" : "first"}" disabled=${busy || (open.length > 0 && !force)}>${question.title.replace("?", "")}</button></footer>
    </form></article></dialog>`;
}

function evidence({ verdict }) {
  if (!verdict) return "no verdict stands";
  return html`${verdict.sentence} <small>as of ${clock(verdict.at_ms)} UTC, digest <code>${verdict.digest}</code></small>`;
}

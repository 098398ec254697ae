// Header, routes and live data.
import { html, render, useEffect, useState } from "/vendor/htm-preact.js";
import { follow, get } from "/api.js";
import { ago } from "/format.js";
import { Model } from "/model.js";
import { Chip, Overview } from "/overview.js";
import { Icon } from "/plots.js";

const here = () => decodeURIComponent(location.hash.replace(/^#\/?/, "").split("?")[0]);

function App() {
  const [model, setModel] = useState(here());
  const { data, seen, failed } = useLive(model);
  const [, repaint] = useState(0);

  useEffect(() => {
    const moved = () => (setModel(here()), scrollTo(0, 0));
    const themed = () => repaint((n) => n + 1);
    addEventListener("hashchange", moved);
    addEventListener("theme", themed);
    return () => (removeEventListener("hashchange", moved), removeEventListener("theme", themed));
  }, []);

  document.title = model ? `${model} · Slipstream` : "Slipstream";
  return html`<${Header} model=${model} data=${data} seen=${seen} failed=${failed} />
    ${failed && html`<p class="failed" role="alert">The monitor does not answer as it should: ${failed.message}.${data && ` What stands below is as of ${ago(seen)}.`}</p>`}
    ${page(model, data, failed)}`;
}

function page(model, data, failed) {
  if (!data) return failed ? null : html`<main class="waiting" aria-label="loading"></main>`;
  return model ? html`<${Model} data=${data} key=${model} />` : html`<${Overview} data=${data} />`;
}

// What belongs to another model is never shown: the answer is kept with its question.
function useLive(model) {
  const [state, setState] = useState({});
  useEffect(() => {
    let left = false;
    const load = () =>
      get(model ? `models/${encodeURIComponent(model)}/timeline` : "overview").then(
        (data) => left || setState({ model, data, seen: Date.now(), failed: null }),
        (failed) => left || setState((old) => ({ ...(old.model === model ? old : { model }), failed })),
      );
    load();
    const stop = follow(load);
    return () => ((left = true), stop());
  }, [model]);
  return state.model === model ? state : {};
}

function Header({ model, data, seen, failed }) {
  const versions = (model && data?.versions) || [];
  const route = model && data?.route;
  return html`<header class="top">
    <a href="#/" class="logo" aria-label="Slipstream, all models"><img src="/icon.svg" alt="" />Slipstream</a>
    <span class="slash">/</span><b class="where">${model || "All models"}</b>
    ${versions.length > 0 && html`<span class="chips">${versions.filter((v) => v.role !== "idle").map((v) => html`<${Chip} version=${v} />`)}</span>`}
    <span class="right">
      ${route && html`<small class="route">route rev ${route.revision} · applied by ${route.applied} of ${route.workers} workers</small>`}
      <${Pill} seen=${seen} failed=${failed} />
      <button class="theme" onClick=${toggle} aria-label="switch between light and dark">◐</button>
    </span>
  </header>`;
}

// Keeps its own clock, so that a second passing redraws nothing else.
function Pill({ seen, failed }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const clock = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(clock);
  }, []);
  if (!seen) return null;
  return html`<span class="pill ${failed ? "stale" : ""}"><${Icon} level=${failed ? "quiet" : "ok"} />${failed ? html`<i>as of</i>` : html`<i class="wide">monitor</i>`}${ago(seen)}</span>`;
}

function toggle() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new Event("theme"));
}

render(html`<${App} />`, document.body);

// Header, routes and live data.
import { html, render, useEffect, useRef, useState } from "/vendor/htm-preact.js";
import { follow, get } from "/api.js";
import { Compare } from "/compare.js";
import { ago } from "/format.js";
import { Model } from "/model.js";
import { Chip, Overview } from "/overview.js";
import { Icon } from "/plots.js";

// "#/MODEL" is its timeline, "#/MODEL/compare" its compare page.
function here() {
  const [model, view] = location.hash.replace(/^#\/?/, "").split("?")[0].split("/").map(decodeURIComponent);
  return { model, view: model && view === "compare" ? "compare" : model ? "timeline" : "" };
}

function App() {
  const [{ model, view }, setPlace] = useState(here());
  const { data, seen, failed, reload } = useLive(model, view);
  const [, repaint] = useState(0);

  useEffect(() => {
    const moved = () => (setPlace(here()), scrollTo(0, 0));
    const themed = () => repaint((n) => n + 1);
    addEventListener("hashchange", moved);
    addEventListener("theme", themed);
    return () => (removeEventListener("hashchange", moved), removeEventListener("theme", themed));
  }, []);

  document.title = model ? `${model} · Slipstream` : "Slipstream";
  return html`<${Header} model=${model} data=${data} seen=${seen} failed=${failed} />
    ${model && html`<${Tabs} model=${model} view=${view} data=${data} />`}
    ${failed && html`<p class="failed" role="alert">The monitor does not answer as it should: ${failed.message}.${data && ` What stands below is as of ${ago(seen)}.`}</p>`}
    ${page(model, view, data, failed, reload)}`;
}

function page(model, view, data, failed, reload) {
  if (!data) return failed ? null : html`<main class="waiting" aria-label="loading"></main>`;
  if (view === "compare") return html`<${Compare} data=${data} failed=${failed} reload=${reload} key=${model} />`;
  return model ? html`<${Model} data=${data} key=${model} />` : html`<${Overview} data=${data} />`;
}

// While somebody decides, what was read stands still.
const deciding = () => document.querySelector("dialog[open]") !== null;

// What belongs to another page is never shown: the answer is kept with its question.
function useLive(model, view) {
  const path = model ? `models/${encodeURIComponent(model)}/${view === "compare" ? "rollout" : view}` : "overview";
  const [state, setState] = useState({});
  const reload = useRef(() => {});
  useEffect(() => {
    let left = false, asked = 0, shown = 0, running = false;
    const load = () => {
      if (deciding()) return;
      const turn = ++asked;
      const late = () => left || turn < shown || deciding();
      get(path).then(
        (data) => {
          if (late()) return;
          shown = turn;
          running = Boolean(data.rollout);
          setState({ path, data, seen: Date.now(), failed: null });
        },
        (failed) => late() || setState((old) => ({ ...(old.path === path ? old : { path }), failed })),
      );
    };
    reload.current = load;
    load();
    const stop = follow(load);
    const quick = setInterval(() => running && load(), 2000);
    return () => ((left = true), clearInterval(quick), stop());
  }, [path]);
  return { ...(state.path === path ? state : {}), reload: () => reload.current() };
}

// Who answers and who rides along, of either page's data.
function roles(data) {
  if (!data?.route) return [];
  if (!("candidate" in data)) return data.versions.filter((v) => v.role !== "idle");
  const { route, candidate: number } = data;
  const other = route.canary === number ? { role: "canary", percent: route.weight / 100 } : { role: "shadow", percent: route.shadow_percent };
  return [{ number: route.champion, role: "champion" }, ...(number ? [{ number, ...other }] : [])];
}

function Tabs({ model, view, data }) {
  const tab = (name, title, address) => html`<a href="#/${encodeURIComponent(model)}${address}" aria-current=${view === name ? "page" : null}>${title}</a>`;
  const { revision, applied = data?.applied, workers = data?.workers } = data?.route ?? {};
  return html`<nav class="tabs" aria-label="Pages of ${model}">
    ${tab("timeline", "Timeline", "")}${tab("compare", "Compare", "/compare")}
    ${data?.route && html`<small class="route">route rev ${revision} · applied by ${applied} of ${workers} workers</small>`}
  </nav>`;
}

function Header({ model, data, seen, failed }) {
  const versions = model ? roles(data) : [];
  return html`<header class="top">
    <a href="#/" class="logo" aria-label="Slipstream, all models"><img src="/icon.svg" alt="" />Slipstream</a>
    <span class="slash">/</span><b class="where">${model || "All models"}</b>
    ${versions.length > 0 && html`<span class="chips">${versions.map((v) => html`<${Chip} version=${v} />`)}</span>`}
    <span class="right">
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

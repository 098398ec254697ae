// Header, routes and live data.
import { html, render, useEffect, useState } from "/vendor/htm-preact.js";
import { follow, get } from "/api.js";
import { ago } from "/format.js";
import { Model } from "/model.js";
import { Chip, Overview } from "/overview.js";
import { Hatching } from "/plots.js";

const here = () => decodeURIComponent(location.hash.replace(/^#\/?/, "").split("?")[0]);

function App() {
  const [model, setModel] = useState(here());
  const [data, setData] = useState(null);
  const [failed, setFailed] = useState(null);
  const [seen, setSeen] = useState(Date.now());
  const [, tick] = useState(0);

  useEffect(() => {
    const moved = () => (setData(null), setModel(here()), scrollTo(0, 0));
    addEventListener("hashchange", moved);
    const clock = setInterval(() => tick((t) => t + 1), 1000);
    return () => (removeEventListener("hashchange", moved), clearInterval(clock));
  }, []);
  useEffect(() => {
    let left = false;
    const load = () =>
      get(model ? `models/${encodeURIComponent(model)}/timeline` : "overview").then(
        (found) => left || (setData(found), setSeen(Date.now()), setFailed(null)),
        (error) => left || setFailed(error),
      );
    load();
    const stop = follow(load);
    return () => ((left = true), stop());
  }, [model]);

  document.title = model ? `${model} · Slipstream` : "Slipstream";
  return html`<${Hatching} /><${Header} model=${model} data=${data} seen=${seen} failed=${failed} />
    ${failed && html`<p class="failed">The monitor does not answer as it should: ${failed.message}. What stands below is as of ${ago(seen)}.</p>`}
    ${data && (model ? data.days && html`<${Model} data=${data} />` : data.models && html`<${Overview} data=${data} />`)}`;
}

function Header({ model, data, seen, failed }) {
  const versions = (model && data?.versions) || [];
  const route = model && data?.route;
  return html`<header class="top">
    <a href="#/" class="logo"><img src="/icon.svg" alt="" />Slipstream</a>
    <span class="slash">/</span><b class="where">${model || "All models"}</b>
    <span class="chips">${versions.filter((v) => v.role !== "idle").map((v) => html`<${Chip} version=${v} />`)}</span>
    <span class="right">
      ${route && html`<small class="route">route rev ${route.revision} · applied by ${route.applied} of ${route.workers} workers</small>`}
      <span class="pill ${failed ? "stale" : ""}">${failed ? `as of ${ago(seen)}` : `monitor ${ago(seen)}`}</span>
      <button class="theme" onClick=${toggle} aria-label="switch between light and dark">◐</button>
    </span>
  </header>`;
}

function toggle() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

render(html`<${App} />`, document.body);

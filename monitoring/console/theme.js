// Before the first paint, so that nothing flashes. What was chosen is kept; else the system decides.
const system = matchMedia("(prefers-color-scheme: dark)");
const show = () => {
  const kept = localStorage.getItem("theme");
  document.documentElement.dataset.theme = kept ?? (system.matches ? "dark" : "light");
  dispatchEvent(new Event("theme"));
};
system.addEventListener("change", show);
show();

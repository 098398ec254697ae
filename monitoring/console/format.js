// Numbers and times as the design notes want them.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export const known = (value) => value !== null && value !== undefined;
export const dot = (value, digits = 3) =>
  !known(value) ? "–" : value.toFixed(digits).replace(/^(-?)0\./, "$1.").replace("-", "−");
export const percent = (value, digits = 0) =>
  known(value) ? `${(value * 100).toFixed(digits)} %` : "–";
export const count = (value) => (known(value) ? value.toLocaleString("en-US") : "–");
export const ms = (value) => (known(value) ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–");
export const half = (estimate) =>
  estimate ? `${dot(estimate.value)} ± ${dot((estimate.high - estimate.low) / 2)}` : "–";

export function day(time) {
  const date = new Date(time);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
}
export const month = (time) => MONTHS[new Date(time).getUTCMonth()];
export const monthStart = (time) => new Date(time).getUTCDate() === 1;

export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - time) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

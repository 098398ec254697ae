// Numbers and times as the design notes want them.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (number) => String(number).padStart(2, "0");

export const known = (value) => value !== null && value !== undefined;
export const dot = (value, digits = 3) =>
  !known(value) ? "–" : value.toFixed(digits).replace(/^(-?)0\./, "$1.").replace("-", "−");
export const percent = (value, digits = 0) =>
  known(value) ? `${(value * 100).toFixed(digits)} %` : "–";
export const count = (value) => (known(value) ? value.toLocaleString("en-US") : "–");
export const ms = (value) => (known(value) ? `${value.toFixed(value < 100 ? 1 : 0)} ms` : "–");
export const half = (estimate) =>
  estimate ? `${dot(estimate.value)} ± ${dot((estimate.high - estimate.low) / 2)}` : "–";
const sign = (value) => (value > 0 ? "+" : value < 0 ? "−" : "");
export const points = (value) => (known(value) ? `${sign(value)}${Math.abs(value * 100).toFixed(1)}` : "–");
export const many = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export function day(time) {
  const date = new Date(time);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
}
export function clock(time) {
  const date = new Date(time);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
}
export const moment = (time) => `${day(time)}, ${clock(time)}`;
export const short = (time) => day(time).replace(/ \d{4}$/, "");
export const stamp = (time, grain) => (grain === "hour" ? moment(time) : day(time));
export const month = (time) => MONTHS[new Date(time).getUTCMonth()];
export const monthStart = (time) => new Date(time).getUTCDate() === 1;

export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - time) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

// The monitor's JSON, and word of when it changed.

export async function get(path) {
  const answer = await fetch(`/api/v1/${path}`);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `the monitor answered ${answer.status}`);
  return value;
}

// Calls `changed` at most once a second; polls every five where events do not come through.
export function follow(changed) {
  const source = new EventSource("/api/v1/events");
  let timer = null;
  const soon = () => (timer ??= setTimeout(() => ((timer = null), changed()), 1000));
  source.addEventListener("window", soon);
  const poll = setInterval(() => source.readyState !== EventSource.OPEN && changed(), 5000);
  return () => (source.close(), clearInterval(poll), clearTimeout(timer));
}

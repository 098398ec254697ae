// The monitor's JSON, and word of when it changed.

export async function get(path) {
  const answer = await fetch(`/api/v1/${path}`);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `the monitor answered ${answer.status}`);
  return value;
}

// Calls `changed` at most once a second. Asks every five seconds where events do not come through,
// and every thirty otherwise: a quiet monitor and a dead one look alike from here.
export function follow(changed) {
  const source = new EventSource("/api/v1/events");
  let timer = null;
  let beats = 0;
  const soon = () => (timer ??= setTimeout(() => ((timer = null), changed()), 1000));
  source.addEventListener("window", soon);
  const poll = setInterval(() => {
    beats += 1;
    if (source.readyState !== EventSource.OPEN || beats % 6 === 0) soon();
  }, 5000);
  return () => (source.close(), clearInterval(poll), clearTimeout(timer));
}

// The monitor's JSON, and word of when it changed.

export async function get(path) {
  const answer = await fetch(`/api/v1/${path}`);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `the monitor answered ${answer.status}`);
  return value;
}

// One change. `once` makes a repeated one harmless; the token is kept for this tab alone.
export async function post(path, body, once) {
  const token = sessionStorage.getItem("token");
  const headers = { "content-type": "application/json", "idempotency-key": once };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(`/api/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  const value = await answer.json();
  if (answer.ok) return value;
  throw Object.assign(new Error(value.error ?? `the monitor answered ${answer.status}`), { status: answer.status });
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

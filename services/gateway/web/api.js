// The gateway's HTTP API, as the page uses it.

/** What went wrong, in the API's own words. `retryAfter`: seconds, or null. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.keyRefused = (code.startsWith("api_key_") && status === 401) || code === "wrong_scope";
  }
}

const KEY = "thumbloop.key";
let tellRefused = () => {};

/** Keeps an API key for this tab; it goes out with every request from now on. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Calls `tell` with the API's words whenever it wants a key, or another one. */
export function whenKeyRefused(tell) {
  tellRefused = tell;
}

function withKey(options = {}) {
  const key = sessionStorage.getItem(KEY);
  if (!key || options.headers?.Authorization) return options;
  return { ...options, headers: { ...options.headers, Authorization: `Bearer ${key}` } };
}

const AWAY = "The gateway cannot be reached. Is it running?";

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, withKey(options));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(AWAY);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const error = new ApiError(body.error?.message ?? `The gateway answered ${response.status}.`, {
    status: response.status,
    code: body.error?.code ?? "",
    retryAfter,
  });
  if (error.keyRefused) tellRefused(error.message);
  throw error;
}

const json = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

/** Yields the `data` of each server-sent event of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection broke in the middle of the answer.");
    });
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) yield data;
    }
  }
}

/** Yields the chunks of a streamed chat answer. Throws ApiError, also midway; AbortError when `signal` fires. */
export async function* streamChat(body, signal) {
  const options = { ...json({ ...body, stream: true, stream_options: { include_usage: true } }), signal };
  let ended = false;
  for await (const data of events(await request("/v1/chat/completions", options))) {
    if (data === "[DONE]") {
      ended = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    yield chunk;
  }
  if (!ended) throw new ApiError("The answer ended early.");
}

/** Sends a statement; resolves when it is durable. */
export async function sendFeedback(body) {
  return (await request("/v1/feedback", json(body))).json();
}

/** Where a statement is. */
export async function feedbackState(feedbackId, token) {
  const headers = { Authorization: `Feedback ${token}` };
  return (await request(`/v1/feedback/${encodeURIComponent(feedbackId)}`, { headers })).json();
}

/** The first model's name. */
export async function modelName() {
  return (await (await request("/v1/models")).json()).data[0].id;
}

const RECONNECT_MS = 1000;

/** Calls `show` with every picture of the releases, and with null while there is no connection. Returns a stopper.
 * A stream that ends well is opened again: the gateway ends each after some minutes.
 * (An EventSource could not send a key.) */
export function watchReleases(show) {
  const abort = new AbortController();
  followReleases(show, abort.signal);
  return () => abort.abort();
}

async function followReleases(show, signal) {
  while (!signal.aborted) {
    let wait = RECONNECT_MS;
    try {
      for await (const data of events(await request("/v1/releases/events", { signal }))) show(JSON.parse(data));
    } catch (error) {
      if (signal.aborted || error.keyRefused) return;
      show(null);
      wait = Math.max(wait, 1000 * (error.retryAfter ?? 0));
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// The gateway's HTTP API, as the page uses it.

/** What went wrong, in the API's own words. `retryAfter`: seconds, or null. */
export class ApiError extends Error {
  constructor(message, { status = 0, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const AWAY = "The gateway cannot be reached. Is it running?";

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(AWAY);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  throw new ApiError(body.error?.message ?? `The gateway answered ${response.status}.`, {
    status: response.status,
    retryAfter,
  });
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

/** Calls `show` with every picture of the releases, and with null while there is no connection. Returns a stopper. */
export function watchReleases(show) {
  const source = new EventSource("/v1/releases/events");
  source.addEventListener("releases", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => show(null));
  return () => source.close();
}

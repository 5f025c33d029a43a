// The conversation: turns, the answer that streams in, and what becomes of each thumb.

import { useCallback, useEffect, useReducer, useRef } from "/web/vendor/htm-preact.js";
import { ApiError, feedbackState, sendFeedback, streamChat } from "/web/api.js";
import { randomId } from "/web/ids.js";

const FINAL = new Set(["late", "superseded", "orphaned", "quarantined", "rejected"]);
const POLL_FIRST_MS = 1000;
const POLL_MAX_MS = 10_000;
const POLLS_MAX = 400;

/* A turn: {id, role, text, state: "done" | "streaming" | "failed" | "stopped", error?, loop?, spans?, thumb?}
   A thumb: {value, id, body, state: "sending" | "failed" | what the API says, error?, trainedInto: [version],
   last: {revision, at} of the newest acknowledged one, or null} */
function reduce(turns, action) {
  const change = (id, changes) => turns.map((turn) => (turn.id === id ? { ...turn, ...changes(turn) } : turn));
  switch (action.type) {
    case "add":
      return [...turns, ...action.turns];
    case "drop":
      return turns.filter((turn) => turn.id !== action.id);
    case "text":
      return change(action.id, (turn) => ({ text: turn.text + action.text }));
    case "set":
      return change(action.id, () => action.changes);
    case "thumb":
      return change(action.id, (turn) =>
        action.ofId === undefined || turn.thumb?.id === action.ofId ? { thumb: action.thumb(turn.thumb) } : {},
      );
    case "clear":
      return [];
  }
}

/** State and verbs of the conversation. */
export function useChat(model, settings) {
  const [turns, dispatch] = useReducer(reduce, []);
  const conversation = useRef(randomId());
  const abort = useRef(null);
  const latest = useRef(turns);
  latest.current = turns;
  const busy = turns.at(-1)?.state === "streaming";
  useEffect(() => () => abort.current?.abort(), []);

  const answer = useCallback(
    async (history) => {
      const id = randomId();
      dispatch({ type: "add", turns: [{ id, role: "assistant", text: "", state: "streaming" }] });
      abort.current = new AbortController();
      const body = {
        model,
        messages: history.map(({ role, text }) => ({ role, content: text })),
        user: settings.user,
        temperature: settings.temperature,
        max_tokens: settings.maxTokens,
        metadata: { conversation_id: conversation.current },
      };
      await follow(id, body, abort.current.signal, dispatch);
    },
    [model, settings],
  );
  const ask = (text) => {
    const turn = { id: randomId(), role: "user", text, state: "done" };
    dispatch({ type: "add", turns: [turn] });
    answer([...said(latest.current), turn]);
  };
  const retry = () => {
    const last = latest.current.at(-1);
    if (last?.role === "assistant") dispatch({ type: "drop", id: last.id });
    answer(said(latest.current.filter((turn) => turn !== last || turn.role === "user")));
  };
  const clear = () => {
    abort.current?.abort();
    conversation.current = randomId();
    dispatch({ type: "clear" });
  };
  const thumb = (id, value) => rate(latest.current.find((turn) => turn.id === id), value, dispatch, latest);
  return { turns, busy, ask, retry, clear, thumb, stop: () => abort.current?.abort() };
}

/** What the model is told of the past: complete questions and answers. */
function said(turns) {
  return turns.filter((turn) => turn.text && (turn.role === "user" || turn.state !== "failed"));
}

async function follow(id, body, signal, dispatch) {
  const set = (changes) => dispatch({ type: "set", id, changes });
  try {
    for await (const chunk of streamChat(body, signal)) {
      const choice = chunk.choices[0];
      if (!choice) continue;
      if (choice.delta.content) dispatch({ type: "text", id, text: choice.delta.content });
      if (choice.thumbloop?.feedback_token) set({ loop: choice.thumbloop });
      if (choice.thumbloop?.spans) set({ spans: choice.thumbloop.spans });
      if (choice.finish_reason) set({ finishReason: choice.finish_reason });
    }
    set({ state: "done" });
  } catch (error) {
    if (error.name === "AbortError") set({ state: "stopped" });
    else set({ state: "failed", error: error instanceof ApiError ? error.message : "The page failed. Reload it." });
  }
}

/** Sends a thumb; the same one again takes it back, the other one changes one's mind. Then follows what becomes of it.
    What could not be sent goes again as it was, under the same id: that is safe. */
async function rate(turn, value, dispatch, latest) {
  const before = turn.thumb;
  const again = before?.state === "failed" && before.value === value;
  const body = again ? before.body : statement(turn.loop.feedback_token, value, before);
  const thumb = {
    id: body.feedback_id,
    value: body.retracted ? null : value,
    body,
    state: "sending",
    trainedInto: [],
    last: before?.last ?? null,
  };
  const set = (changes) =>
    dispatch({ type: "thumb", id: turn.id, ofId: thumb.id, thumb: (old) => ({ ...old, ...changes }) });
  dispatch({ type: "thumb", id: turn.id, thumb: () => thumb });
  try {
    const answer = await sendFeedback(body);
    const last = { revision: answer.revision, at: performance.now() };
    set({ state: body.retracted ? "retracted" : answer.state, last });
    if (!body.retracted) await watch(turn.id, thumb.id, body.token, set, latest);
  } catch (error) {
    set({ state: "failed", value, error: error.message });
  }
}

/** A new statement: with a higher revision than the last one, whatever gateway takes it and whatever its clock says. */
function statement(token, value, before) {
  const body = {
    token,
    kind: "thumb",
    value,
    feedback_id: randomId(),
    retracted: before?.value === value,
  };
  const last = before?.last;
  return last ? { ...body, revision: last.revision + 1 + Math.round(performance.now() - last.at) } : body;
}

async function watch(turnId, thumbId, token, set, latest) {
  let pause = POLL_FIRST_MS;
  for (let polls = 0; polls < POLLS_MAX; polls += 1) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (latest.current.find((turn) => turn.id === turnId)?.thumb?.id !== thumbId) return;
    pause = Math.min(pause * 1.3, POLL_MAX_MS);
    const fate = await feedbackState(thumbId, token).catch(() => null);
    if (!fate) continue;
    const trainedInto = [...new Set([...fate.trained_into, ...fate.trained_into_through_reward_model])].sort();
    set({ state: fate.state, reason: fate.reason, trainedInto, rewardModels: fate.reward_model_versions });
    if (trainedInto.length || FINAL.has(fate.state)) return;
  }
}

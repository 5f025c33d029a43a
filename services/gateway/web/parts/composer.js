// Where the person writes.

import { html, useEffect, useRef, useState } from "/web/vendor/htm-preact.js";
import { Send, Stop } from "/web/parts/icons.js";

export function Composer({ busy, onSend, onStop }) {
  const [text, setText] = useState("");
  const field = useRef(null);
  useEffect(() => {
    field.current.style.height = "auto";
    field.current.style.height = `${field.current.scrollHeight}px`;
  }, [text]);
  useEffect(() => {
    if (!busy && matchMedia("(hover: hover)").matches) field.current.focus();
  }, [busy]);

  const send = (event) => {
    event?.preventDefault();
    if (busy || !text.trim()) return;
    onSend(text.trim());
    setText("");
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  return html`
    <form class="composer" onSubmit=${send}>
      <textarea ref=${field} rows="1" value=${text} placeholder="Write a message" aria-label="Message"
        onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown}></textarea>
      ${busy
        ? html`<button type="button" class="send" onClick=${onStop} aria-label="Stop" title="Stop (Esc)"><${Stop} /></button>`
        : html`<button type="submit" class="send" disabled=${!text.trim()} aria-label="Send" title="Send (Enter)"><${Send} /></button>`}
    </form>
  `;
}

// Where the gateway lets nobody chat without a key: asks for one, and keeps it for this tab alone.

import { html, useState } from "/web/vendor/htm-preact.js";
import { keepKey } from "/web/api.js";

export function KeyPrompt({ why, onKept }) {
  const [key, setKey] = useState("");
  const keep = (event) => {
    event.preventDefault();
    if (!key.trim()) return;
    keepKey(key.trim());
    onKept();
  };
  return html`
    <form class="key-prompt" onSubmit=${keep}>
      <label for="api-key">API key</label>
      <p class="fine" role="alert">${why}</p>
      <div class="composer">
        <input id="api-key" type="password" autocomplete="off" spellcheck="false" placeholder="tl_…" value=${key}
          onInput=${(event) => setKey(event.target.value)} />
        <button type="submit" class="idea" disabled=${!key.trim()}>Use this key</button>
      </div>
      <p class="fine">It stays in this tab, until you close it.</p>
    </form>
  `;
}

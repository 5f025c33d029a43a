// How to ask, and under which name.

import { html } from "/web/vendor/htm-preact.js";

export function Settings({ settings, onChange }) {
  const number = (name) => (event) => onChange({ [name]: Number(event.target.value) });
  return html`
    <details class="settings">
      <summary>Settings</summary>
      <label>Your id <input type="text" maxlength="64" value=${settings.user} spellcheck="false"
        onChange=${(event) => event.target.value.trim() && onChange({ user: event.target.value.trim() })} /></label>
      <label>Temperature <output>${settings.temperature}</output>
        <input type="range" min="0" max="1.5" step="0.1" value=${settings.temperature} onInput=${number("temperature")} /></label>
      <label>Longest answer <output>${settings.maxTokens} tokens</output>
        <input type="range" min="16" max="512" step="16" value=${settings.maxTokens} onInput=${number("maxTokens")} /></label>
      <p class="fine">Your id stays in this browser; Thumbloop stores a keyed hash of it. <a href="/docs">API</a></p>
    </details>
  `;
}

// What an empty conversation shows.

import { html } from "/web/vendor/htm-preact.js";

const IDEAS = [
  "How do I keep a houseplant alive?",
  "Tell me something kind for a hard day.",
  "What should I cook tonight?",
  "How can I learn to play the guitar?",
];

export function Welcome({ onAsk }) {
  return html`
    <section class="welcome">
      <h2>Your thumbs train this model.</h2>
      <p>Ask something, then say whether you like the answer. A better version takes over while you chat; watch its badge change.</p>
      <ul class="ideas">
        ${IDEAS.map((idea) => html`<li><button class="idea" onClick=${() => onAsk(idea)}>${idea}</button></li>`)}
      </ul>
    </section>
  `;
}

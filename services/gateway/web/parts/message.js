// One turn. An answer shows the version that drew it, takes a thumb, and tells what became of it.

import { html } from "/web/vendor/htm-preact.js";
import { Again } from "/web/parts/icons.js";
import { Thumbs } from "/web/parts/thumbs.js";
import { Version } from "/web/parts/version.js";

export function Message({ turn, onRetry, onThumb }) {
  if (turn.role === "user") return html`<article class="turn user" aria-label="You"><p class="text">${turn.text}</p></article>`;
  const streaming = turn.state === "streaming";
  return html`
    <article class="turn assistant" aria-label="Answer" aria-busy=${streaming} data-state=${turn.state}>
      ${streaming && !turn.text
        ? html`<p class="text thinking" aria-label="Thinking"><i></i><i></i><i></i></p>`
        : html`<p class="text">${turn.text}${streaming && html`<span class="caret" aria-hidden="true"></span>`}</p>`}
      ${turn.state === "failed" && html`<${Failure} error=${turn.error} onRetry=${onRetry} />`}
      <footer class="below">
        <${Drawn} turn=${turn} />
        ${turn.loop && turn.state === "done" && html`<${Thumbs} thumb=${turn.thumb} onThumb=${onThumb} />`}
        ${turn.state === "stopped" && html`<span class="note">stopped</span>`}
        ${turn.state === "done" && turn.finishReason === "length" && html`<span class="note" title="The length limit was reached">cut at the limit</span>`}
        ${turn.state !== "failed" && !streaming && onRetry && html`
          <button class="small" onClick=${onRetry} aria-label="Ask again" title="Ask again"><${Again} /></button>`}
      </footer>
    </article>
  `;
}

/** Which version drew the answer; two badges where a release came in the middle of it. */
function Drawn({ turn }) {
  const spans = turn.spans ?? [];
  if (spans.length < 2) return html`<${Version} version=${spans[0]?.policy_version ?? turn.loop?.policy_version} />`;
  const versions = spans.map((span) => span.policy_version);
  const where = spans.slice(1).map((span) => span.begin).join(", ");
  return html`
    <span class="drawn" title=${`A new version took over at token ${where} of ${spans.at(-1).end}`}>
      ${versions.map((version, index) => html`${index > 0 && html`<span class="arrow" aria-label="then">→</span>`}<${Version} key=${version} version=${version} />`)}
      <span class="note">changed mid-answer</span>
    </span>
  `;
}

function Failure({ error, onRetry }) {
  return html`
    <div class="failure" role="alert">
      <span>${error}</span>
      ${onRetry && html`<button class="small worded" onClick=${onRetry}><${Again} /> Try again</button>`}
    </div>
  `;
}

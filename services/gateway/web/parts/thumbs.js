// Thumbs up and down, and the way of a thumb: sent, joined with its answer, learned from.

import { html } from "/web/vendor/htm-preact.js";
import { ThumbUp } from "/web/parts/icons.js";
import { Version } from "/web/parts/version.js";

const NAMES = { up: "Good answer", down: "Bad answer" };
const REACHED = { sending: 0, accepted: 1, spooled: 1, waiting: 1, joined: 2, late: 2 };
const WORDS = {
  sending: "sending",
  accepted: "received",
  spooled: "received, waiting for the log",
  waiting: "received, waiting for its answer's record",
  joined: "joined, will be learned from",
  late: "joined late: teaches the reward model",
  superseded: "replaced by a newer one",
  retracted: "taken back",
  orphaned: "its answer's record was lost",
  quarantined: "set aside",
  rejected: "not usable",
};

export function Thumbs({ thumb, onThumb }) {
  const button = (value) => html`
    <button class=${`thumb ${value}`} aria-pressed=${thumb?.value === value} aria-label=${NAMES[value]}
      title=${thumb?.value === value ? "Take it back" : NAMES[value]} disabled=${thumb?.state === "sending"}
      onClick=${() => onThumb(value)}><${ThumbUp} /></button>`;
  return html`
    <span class="thumbs" role="group" aria-label="Rate this answer">${button("up")}${button("down")}</span>
    ${thumb && html`<${Fate} thumb=${thumb} onAgain=${() => onThumb(thumb.value)} />`}
  `;
}

function Fate({ thumb, onAgain }) {
  if (thumb.state === "failed") {
    return html`<span class="fate bad" role="alert" title=${thumb.error}>not sent
      <button class="link" onClick=${onAgain}>send again</button></span>`;
  }
  const trained = thumb.trainedInto.length > 0;
  const reached = trained ? 3 : (REACHED[thumb.state] ?? -1);
  return html`
    <span class="fate" role="status" data-state=${trained ? "trained" : thumb.state} title=${thumb.reason || null}>
      ${reached >= 0 && html`<span class="steps" aria-hidden="true">
        ${[1, 2, 3].map((step) => html`<i class=${reached >= step ? "reached" : ""}></i>`)}</span>`}
      ${trained
        ? html`taught ${thumb.trainedInto.slice(0, 3).map((version) => html`<${Version} key=${version} version=${version} /> `)}`
        : (WORDS[thumb.state] ?? thumb.state)}
    </span>
  `;
}

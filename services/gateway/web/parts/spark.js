// Thumbs-up rate by release, oldest first, as a small line.

import { html } from "/web/vendor/htm-preact.js";
import { percent } from "/web/words.js";

const WIDTH = 280;
const HEIGHT = 56;
const EDGE = 5;

/** `points`: shares, or null where there were no thumbs. Nothing is drawn for fewer than two. */
export function Spark({ points }) {
  const known = points.map((share, index) => ({ share, index })).filter(({ share }) => share !== null && share !== undefined);
  if (known.length < 2) return null;
  const x = (index) => EDGE + (index / Math.max(1, points.length - 1)) * (WIDTH - 2 * EDGE);
  const y = (share) => HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE);
  const path = known.map(({ share, index }, at) => `${at ? "L" : "M"}${x(index).toFixed(1)} ${y(share).toFixed(1)}`).join("");
  const last = known.at(-1);
  const words = `Thumbs-up rate by release, from ${percent(known[0].share)} to ${percent(last.share)}`;
  return html`
    <figure class="spark">
      <figcaption>Thumbs up <b>${percent(known[0].share)} → ${percent(last.share)}</b></figcaption>
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${words}>
        <line x1="0" x2=${WIDTH} y1=${y(0.5)} y2=${y(0.5)} />
        <path d=${path} />
        <circle cx=${x(last.index)} cy=${y(last.share)} r="3.5" />
      </svg>
    </figure>
  `;
}

// The side panel: how training goes, and every release as it happens.

import { html, useEffect, useState } from "/web/vendor/htm-preact.js";
import { Close } from "/web/parts/icons.js";
import { Settings } from "/web/parts/settings.js";
import { Spark } from "/web/parts/spark.js";
import { Version } from "/web/parts/version.js";
import { ago, figure, percent, phaseWords } from "/web/words.js";

const NOT_YET = 1e9;

export function Releases({ picture, open, onClose, settings, onChange }) {
  useClock();
  const data = picture.data;
  const policies = (data?.releases ?? []).filter((release) => release.kind === "policy");
  return html`
    <aside class="panel" id="releases" aria-label="Releases" data-open=${open}>
      <div class="panel-head">
        <h2>Releases</h2>
        <button class="tool only-narrow" onClick=${onClose} aria-label="Close"><${Close} /></button>
      </div>
      <${Training} picture=${picture} />
      <${Spark} points=${policies.filter(wasServed).map(upRate).reverse()} />
      ${policies.length > 0
        ? html`<ol class="timeline">
            ${policies.map((release) => html`<${Release} key=${release.version} release=${release} live=${data.generator.live_version} />`)}
          </ol>`
        : html`<p class="empty">${data?.learner.reachable
            ? "No release yet. The first one appears when the learner has started."
            : "Releases appear here when the learner is there."}</p>`}
      <${Settings} settings=${settings} onChange=${onChange} />
    </aside>
  `;
}

function Training({ picture }) {
  const learner = picture.data?.learner;
  if (!picture.data) return html`<p class="training">${picture.connected ? "Connecting …" : "The gateway cannot be reached."}</p>`;
  if (!learner.reachable) {
    return html`<p class="training away" role="status">The learner is away. Chat goes on; what is shown is the last that was known.</p>`;
  }
  const arrived = learner.thumb_to_token_p50_s !== null && learner.thumb_to_token_p50_s < NOT_YET;
  return html`
    <div class="training">
      <p class="phase" role="status">
        <span class="pulse" data-busy=${/updating|training|gating|rescoring/.test(learner.phase)} aria-hidden="true"></span>
        ${learner.paused ? "Training is paused" : phaseWords(learner.phase)}
      </p>
      ${learner.waiting_reason && html`<p class="why">${learner.waiting_reason}</p>`}
      <dl class="figures">
        <div><dt>Thumbs</dt><dd>${learner.thumbs_up} up, ${learner.thumbs_down} down</dd></div>
        <div><dt>Ready to learn</dt><dd>${learner.ready}</dd></div>
        <div title="How well the reward model foretells thumbs; 0.5 is guessing"><dt>Reward model</dt>
          <dd>${learner.reward_auroc === null ? "learning" : `AUROC ${learner.reward_auroc.toFixed(2)}`}</dd></div>
        <div title="Median seconds from a thumb to the first token of a version that learned from it"><dt>Thumb to token</dt>
          <dd>${arrived ? `${Math.round(learner.thumb_to_token_p50_s)} s` : "–"}</dd></div>
      </dl>
    </div>
  `;
}

function Release({ release, live }) {
  const rate = upRate(release);
  const { up, down } = release.thumbs;
  const state = release.version === live ? "live" : release.state;
  return html`
    <li class="release" data-state=${state}>
      <div class="release-head">
        <${Version} version=${release.version} />
        ${state !== "published" && html`<span class="tag">${state.replace("_", " ")}</span>`}
        <time>${ago(release.publish_time ?? release.commit_time)}</time>
      </div>
      <dl class="release-figures">
        <div title=${`${up} up, ${down} down, seen by this gateway`}><dt>thumbs up</dt>
          <dd>${percent(rate)}${rate === release.thumbs.up_rate && up + down > 0 && html` <small>of ${up + down}</small>`}</dd></div>
        <div title="KL to the reference policy, nats per answer"><dt>KL</dt><dd>${figure(release.metrics.kl_per_answer)}</dd></div>
        <div title="Mean reward of its batch, in thumb units"><dt>reward</dt><dd>${figure(release.metrics.reward_mean)}</dd></div>
      </dl>
      ${state === "refused" && html`<p class="why">${release.gate_verdict.join("; ")}</p>`}
    </li>
  `;
}

/** Share of thumbs that are up, or null before the first. */
function upRate(release) {
  return release.metrics.thumbs_up_rate ?? release.thumbs.up_rate;
}

function wasServed(release) {
  return release.state === "published" || release.state === "rolled_back";
}

/** Renders again now and then, so that "ago" stays true. */
function useClock() {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((count) => count + 1), 10_000);
    return () => clearInterval(timer);
  }, []);
}

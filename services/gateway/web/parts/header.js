// The top bar: name, the version that answers now, and the page's switches.

import { html } from "/web/vendor/htm-preact.js";
import { Loop, Moon, Panel, Plus } from "/web/parts/icons.js";
import { Version } from "/web/parts/version.js";

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("thumbloop.theme", root.dataset.theme);
}

export function Header({ picture, onNew, onPanel, panelOpen, canClear }) {
  return html`
    <header class="bar">
      <h1 class="brand"><${Loop} /><span>Thumbloop</span></h1>
      <${Live} picture=${picture} />
      <nav class="tools" aria-label="Page">
        <button class="tool" onClick=${onNew} disabled=${!canClear} aria-label="New chat" title="New chat"><${Plus} /></button>
        <button class="tool" onClick=${toggleTheme} aria-label="Light or dark" title="Light or dark"><${Moon} /></button>
        <button class="tool only-narrow" onClick=${onPanel} aria-label="Releases" title="Releases"
          aria-expanded=${panelOpen} aria-controls="releases"><${Panel} /></button>
      </nav>
    </header>
  `;
}

function Live({ picture }) {
  const version = picture.data?.generator.live_version;
  const reachable = picture.connected && picture.data?.generator.reachable;
  const words = !picture.connected ? "gateway away" : !picture.data ? "connecting" : !reachable ? "model away" : "answering now";
  return html`
    <div class="live" role="status" data-ok=${Boolean(reachable && version)}>
      <span class="dot" aria-hidden="true"></span>
      <${Version} version=${version} lively title=${`Policy ${version} answers now`} />
      <span class="live-words">${words}</span>
    </div>
  `;
}

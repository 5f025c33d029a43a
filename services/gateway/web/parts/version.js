// A policy version as a small coloured badge.

import { html, useEffect, useRef } from "/web/vendor/htm-preact.js";
import { shortVersion, versionHue } from "/web/words.js";

/** `lively`: turns over visibly when the version changes. */
export function Version({ version, title, lively = false }) {
  const badge = useRef(null);
  const last = useRef(version);
  useEffect(() => {
    badge.current?.style.setProperty("--hue", versionHue(version));
    if (lively && last.current && version && last.current !== version) {
      badge.current.classList.remove("flipped");
      void badge.current.offsetWidth; // starts the animation anew
      badge.current.classList.add("flipped");
    }
    last.current = version;
  }, [version]);
  if (!version) return null;
  return html`<span class="version" ref=${badge} title=${title ?? version}>${shortVersion(version)}</span>`;
}

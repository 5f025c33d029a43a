// Icons, drawn here so that nothing is loaded. All are decoration: the buttons around them have names.

import { html } from "/web/vendor/htm-preact.js";

const icon = (path) => () =>
  html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"
    stroke-linejoin="round" aria-hidden="true"><path d=${path} /></svg>`;

const THUMB = "M7 11v9H4.5A1.5 1.5 0 0 1 3 18.500v-6A1.5 1.5 0 0 1 4.500 11H7zm0 0 4.200-7.300a1.900 1.900 0 0 1 3.500 1.400L14 9h4.700a2 2 0 0 1 2 2.400l-1.300 7A2 2 0 0 1 17.400 20H7";

export const ThumbUp = icon(THUMB);
export const Send = icon("M5 12h14M13 6l6 6-6 6");
export const Stop = icon("M7 7h10v10H7z");
export const Again = icon("M20 11a8 8 0 1 0-2.300 6.300M20 5v6h-6");
export const Plus = icon("M12 5v14M5 12h14");
export const Close = icon("M6 6l12 12M18 6L6 18");
export const Panel = icon("M4 17l5-5 4 3 7-8M15 7h5v5");
export const Moon = icon("M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z");
export const Loop = icon("M20 9A8.500 8.500 0 1 0 20.500 14M20.500 4v5h-5M9 15.500v-4l2.300-3.600a1 1 0 0 1 1.800 1l-.7 1.900h2.500a1.200 1.200 0 0 1 1.200 1.500l-.6 2.300a1.300 1.300 0 0 1-1.300 1H9z");

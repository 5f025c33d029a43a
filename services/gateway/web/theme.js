// Light or dark: the system's choice until the person makes one. A plain script, so that it runs before the first paint.
(() => {
  const stored = localStorage.getItem("thumbloop.theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();

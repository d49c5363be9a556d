// Runs the clocks of a page and says when its live data is interrupted. Pages work without it.
(() => {
  "use strict";
  // The page's clock is the server's: the visitor's may be wrong.
  const skew = Number(document.body.dataset.now) - Date.now();

  const clock = (ms) => {
    const s = Math.max(0, Math.floor(ms / 1000));
    const two = (n) => String(n).padStart(2, "0");
    return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
      : `${Math.floor(s / 60)}:${two(s % 60)}`;
  };

  const tick = () => {
    const now = Date.now() + skew;
    for (const e of document.querySelectorAll("[data-since]")) {
      const ms = now - Number(e.dataset.since);
      e.textContent = clock(ms);
      e.classList.toggle("late", ms >= (e.dataset.warn ?? Infinity) * 1000);
      e.classList.toggle("very-late", ms >= (e.dataset.bad ?? Infinity) * 1000);
    }
    for (const e of document.querySelectorAll("[data-until]")) {
      e.textContent = clock(Number(e.dataset.until) - now);
    }
  };
  tick();
  setInterval(tick, 1000);

  // What an act said is taken away when it is old news; what went wrong stays.
  document.addEventListener("htmx:after:swap", (event) => {
    const said = document.querySelector("#flash .flash:not(.flash-bad)");
    if (event.target.id === "flash" || !said) return;
    if (!said.dataset.shown) said.dataset.shown = Date.now();
    else if (Date.now() - said.dataset.shown > 10000) said.remove();
  });

  const stale = document.getElementById("stale");
  const live = (ok) => { stale.hidden = ok; };
  document.addEventListener("htmx:sse:after:connection", () => live(true));
  document.addEventListener("htmx:sse:error", () => live(false));
  document.addEventListener("htmx:sse:close", () => live(false));
  document.addEventListener("htmx:sse:after:message", tick);
})();

// Shows what hotctl has to say over the page, and loads the page anew once another version is live.
(() => {
  "use strict";
  if (window.__hotctl) return;
  window.__hotctl = true;
  const { service, release, assets, turn, once } = document.currentScript.dataset;
  const isTop = window.top === window;
  // A page without a release is hotctl's own: there is nothing else to see.
  const isOwn = release === undefined;
  let shown = release;
  let loaded = Number(assets);
  let news = null;
  let offset = 0;
  let dismissed = "";
  let going = false;

  // --- News -----------------------------------------------------------------------------------

  function hear({ news: next, heard }) {
    news = next;
    offset = heard - next.now_ms;
    follow();
    if (isTop && !going) show();
  }

  function listen() {
    try {
      const worker = new SharedWorker("/__hotctl/worker.js", { name: "hotctl" });
      worker.port.onmessage = (message) => hear(message.data);
      worker.onerror = () => lead();
      addEventListener("pagehide", () => worker.port.postMessage("leaves"));
      // Back from where pages wait to be gone back to.
      addEventListener("pageshow", (event) => {
        if (event.persisted) location.reload();
      });
    } catch {
      lead();
    }
  }

  // Where there are no such workers, one tab asks for all.
  function lead() {
    const channel = new BroadcastChannel("hotctl");
    channel.onmessage = (message) => hear(message.data);
    const ask = async () => {
      let known = "";
      for (;;) {
        try {
          const answer = await fetch("/__hotctl/news?" + known, { cache: "no-store" });
          const told = { news: await answer.json(), heard: Date.now() };
          known = told.news.boot + "-" + told.news.seq;
          channel.postMessage(told);
          hear(told);
        } catch {
          await new Promise((resume) => setTimeout(resume, 300));
        }
      }
    };
    if (navigator.locks) navigator.locks.request("hotctl", ask);
    else ask();
  }

  // --- Another version ------------------------------------------------------------------------

  function follow() {
    const sheet = news.services[service];
    if (!sheet || going) return;
    if (isOwn) {
      const now = news.boot + "-" + sheet.turn;
      if (sheet.live && turn !== now) anew(now);
      return;
    }
    if (sheet.assets > loaded) {
      if (sheet.only_asset_styles && sheet.assets === loaded + 1) {
        loaded = sheet.assets;
        restyle("assets-" + loaded);
      } else {
        anew(news.boot + "-assets-" + sheet.assets);
      }
    }
    if (sheet.live && sheet.live !== shown) {
      if (sheet.only_styles && sheet.before === shown) {
        shown = sheet.live;
        restyle(sheet.live);
      } else {
        anew(sheet.live);
      }
    }
  }

  // Once for each version: a page that is kept somewhere would come again and again.
  function anew(version) {
    // To load what a form has brought would send the form again.
    if (once !== undefined) return;
    const key = "hotctl:" + location.pathname + location.search;
    try {
      if (sessionStorage.getItem(key) === version) return;
      sessionStorage.setItem(key, version);
    } catch {
      // No storage here: then at most one a second.
      if (performance.now() < 1000) return;
    }
    going = true;
    location.reload();
  }

  function restyle(version) {
    for (const link of document.querySelectorAll("link[rel~=stylesheet][href]")) {
      const address = new URL(link.href, location.href);
      if (address.origin !== location.origin) continue;
      address.searchParams.set("hotctl", version);
      const next = link.cloneNode();
      next.href = address.href;
      const done = () => link.remove();
      next.addEventListener("load", done);
      next.addEventListener("error", done);
      link.after(next);
    }
  }

  // --- Over the page --------------------------------------------------------------------------

  const host = document.createElement("hotctl-overlay");
  const root = host.attachShadow({ mode: "open" });
  const styles = new CSSStyleSheet();
  styles.replaceSync(`
    :host { all: initial; }
    .back { position: fixed; inset: 0; z-index: 2147483647; overflow: auto; padding: 22vh 4vw 4vh;
      background: rgba(12, 14, 20, .55); }
    .back.own { background: #0c0e14; padding-top: 6vh; }
    .card { max-width: 60rem; margin: 0 auto; background: #171a23; color: #d7dae3; border-radius: 8px;
      border-top: 6px solid #e5484d; padding: 1.2rem 1.6rem 1.4rem;
      font: 14px/1.5 system-ui, sans-serif; box-shadow: 0 12px 48px rgba(0, 0, 0, .6); }
    .card + .card { margin-top: 1rem; }
    .card.quiet { border-top-color: #3e8bff; }
    .live { color: #8b90a0; }
    h1 { font-size: 1.25rem; margin: 0 0 .3rem; font-weight: 600; color: #fff; }
    h1 button { float: right; font: inherit; font-size: .85rem; color: #8b90a0; background: none;
      border: 1px solid #3a3f4d; border-radius: 4px; padding: .1rem .6rem; cursor: pointer; }
    p { margin: .4rem 0; }
    ul { list-style: none; margin: .8rem 0; padding: 0; }
    li { margin: .3rem 0; }
    a, .place { color: #6cb6ff; font: 13px/1.5 ui-monospace, monospace; }
    .text { color: #ff9a9d; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; }
    pre { background: #0c0e14; border-radius: 4px; padding: .8rem 1rem; margin: .8rem 0; overflow: auto;
      font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
    .hint { color: #f5d90a; }
  `);
  root.adoptedStyleSheets = [styles];

  function element(name, kind, ...inside) {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    made.append(...inside);
    return made;
  }

  // The colours of a terminal, of which the text is left as it is.
  const COLOURS = ["#5c6370", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", "#d7dae3"];
  function painted(text) {
    const pieces = [];
    let colour = "";
    let bold = false;
    let at = 0;
    const piece = (end) => {
      if (end <= at) return;
      const span = element("span", "", text.slice(at, end));
      if (colour) span.style.color = colour;
      if (bold) span.style.fontWeight = "bold";
      pieces.push(span);
    };
    const sequences = /\x1b(?:\[([0-9;:]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g;
    for (const found of text.matchAll(sequences)) {
      piece(found.index);
      at = found.index + found[0].length;
      if (found[2] !== "m") continue;
      const codes = (found[1] || "0").split(/[;:]/).map(Number);
      for (let n = 0; n < codes.length; n++) {
        const code = codes[n];
        if (code === 0) [colour, bold] = ["", false];
        else if (code === 1) bold = true;
        else if (code === 22) bold = false;
        else if (code >= 30 && code <= 37) colour = COLOURS[code - 30];
        else if (code >= 90 && code <= 97) colour = COLOURS[code - 90];
        else if (code === 39) colour = "";
        else if (code === 38 || code === 48) {
          if (codes[n + 1] === 5) {
            if (code === 38) colour = COLOURS[codes[n + 2] % 8];
            n += 2;
          } else {
            if (code === 38) colour = `rgb(${codes.slice(n + 2, n + 5).join()})`;
            n += 4;
          }
        }
      }
    }
    piece(text.length);
    return pieces;
  }

  function since(at) {
    const seconds = Math.max(0, Math.round((Date.now() - offset - at) / 1000));
    if (seconds < 60) return `${seconds} s ago`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
    return `${Math.floor(seconds / 3600)} h ago`;
  }

  function card(sheet, problem) {
    const serving = sheet.live ? `serving ${sheet.live}` : "nothing serves";
    const title = element("h1", "");
    const words = element("span", "");
    const tell = () => (words.textContent = `${serving}; ${problem.title} ${since(problem.at_ms)}`);
    tell();
    host.tells.push(tell);
    if (!isOwn) {
      const close = element("button", "", "Esc");
      close.onclick = dismiss;
      title.append(close);
    }
    title.append(words);
    const made = element("div", "card", title, element("p", "", ...painted(problem.why)));
    if (problem.errors.length) {
      const list = problem.errors.map((error) => {
        let place = element("span", "place", error.place);
        if (error.link) {
          place = element("a", "", error.place);
          place.href = error.link;
        }
        return element("li", "", place, element("div", "text", ...painted(error.text)));
      });
      made.append(element("ul", "", ...list));
    }
    if (problem.output.length) {
      made.append(element("pre", "", ...painted(problem.output.join("\n"))));
    }
    if (problem.hint) made.append(element("p", "hint", `try: ${problem.hint}`));
    if (sheet.doing) made.append(element("p", "live", `${sheet.doing} …`));
    return made;
  }

  function show() {
    const sheets = Object.entries(news.services);
    const problems = sheets.filter(([, sheet]) => sheet.problem);
    const key = problems.map(([name, sheet]) => `${name} ${sheet.problem.at_ms}`).join();
    host.tells = [];
    const cards = problems.map(([, sheet]) => card(sheet, sheet.problem));
    if (isOwn && !cards.length) {
      const own = document.querySelector("body")?.innerText.trim() ?? "";
      const doing = sheets.filter(([, sheet]) => sheet.doing);
      const lines = doing.map(([name, sheet]) => element("p", "", `${name}: ${sheet.doing} …`));
      if (lines.length) cards.push(element("div", "card quiet", element("h1", "", own.split("\n")[0]), ...lines));
    }
    if (!cards.length || (!isOwn && key === dismissed)) {
      host.remove();
      return;
    }
    const back = element("div", isOwn ? "back own" : "back", ...cards);
    root.replaceChildren(back);
    if (!host.isConnected) document.documentElement.append(host);
    host.dataset.key = key;
  }

  function dismiss() {
    dismissed = host.dataset.key;
    host.remove();
  }

  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && host.isConnected && !isOwn) dismiss();
  });
  setInterval(() => host.isConnected && host.tells.forEach((tell) => tell()), 1000);
  listen();
})();

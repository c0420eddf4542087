// One for all tabs of this address: it waits for news, so that no tab needs a connection for that.
"use strict";

const ports = new Set();
let last = null;

self.onconnect = (event) => {
  const port = event.ports[0];
  ports.add(port);
  port.onmessage = (message) => {
    if (message.data === "leaves") ports.delete(port);
  };
  if (last) port.postMessage(last);
};

async function follow() {
  let known = "";
  for (;;) {
    try {
      const answer = await fetch("/__hotctl/news?" + known, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      last = { news, heard: Date.now() };
      const now = news.boot + "-" + news.seq;
      if (now !== known) for (const port of ports) port.postMessage(last);
      known = now;
    } catch {
      // hotctl is not there, or is being started again.
      await new Promise((resume) => setTimeout(resume, 300));
    }
  }
}
follow();

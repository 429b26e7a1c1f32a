// The frame: heading, pages, the server's state, the question for a key.
import { call, get, hasKey, forgetKey } from "./api.js";
import { KeyDialog } from "./components/key.js";
import { Notice } from "./components/notice.js";
import { useLoad, usePoll } from "./loading.js";
import { linkTo, useRoute } from "./route.js";
import { html, render, useEffect, useRef, useState } from "./view.js";

const PAGES = {
  playground: { title: "Playground", load: () => import("./pages/playground.js") },
  adapters: { title: "Adapters", load: () => import("./pages/adapters.js") },
  training: { title: "Training", load: () => import("./pages/training.js") },
  live: { title: "Live", load: () => import("./pages/live.js") },
};
const WORDS = { ready: "ready", starting: "starting", away: "away" };

/** Returns { is, why, base } of the server, asked again and again. */
function useServer() {
  const [server, setServer] = useState({ is: "starting", why: "asking the server", base: "" });
  const look = async () => {
    try {
      const { base } = await (await call("health/ready")).json();
      setServer((old) => (old.is === "ready" && old.base === base ? old : { is: "ready", base, why: "" }));
    } catch (error) {
      setServer((old) => ({ ...old, is: error.status ? "starting" : "away", why: error.message }));
    }
  };
  usePoll(look, server.is === "ready" ? 10_000 : 1000, [server.is === "ready"]);
  return server;
}

function Heading({ page, server, onForget }) {
  return html`<header class="top">
    <a class="skip" href="#main" onClick=${toMain}>To the content</a>
    <a class="brand" href=${linkTo("playground")}><img src="console/icon.svg" alt="" width="24" height="24" />Overtone</a>
    <nav aria-label="Pages">
      ${Object.entries(PAGES).map(([name, { title }]) => html`
        <a key=${name} href=${linkTo(name)} aria-current=${name === page ? "page" : null}>${title}</a>`)}
    </nav>
    <div class="state">
      <span class="badge ${server.is}" title=${server.why || null}>${WORDS[server.is]}</span>
      ${server.base && html`<span class="base" title="The base">${server.base}</span>`}
      ${hasKey() && html`<button class="quiet" onClick=${onForget}>Forget the key</button>`}
    </div>
  </header>`;
}

function toMain(event) {
  event.preventDefault(); // the hash names the page
  document.getElementById("main").focus();
}

/** The page's module, once it is there. */
function usePage(name) {
  const [loaded, setLoaded] = useState({});
  useEffect(() => {
    if (!loaded[name]) {
      PAGES[name].load().then(
        (module) => setLoaded((old) => ({ ...old, [name]: module.Page })),
        () => setLoaded((old) => ({ ...old, [name]: Missing })),
      );
    }
  }, [name]);
  return loaded[name];
}

const Missing = () => html`<${Notice} kind="bad">This page could not be loaded; load it again.<//>`;

function Body({ name, route, base, hasStarted }) {
  const Page = usePage(name);
  if (!hasStarted || !base || !Page) return null;
  return html`<${Page} route=${route} base=${base} />`;
}

function App() {
  const route = useRoute();
  const server = useServer();
  const [hasStarted, setHasStarted] = useState(false);
  const name = PAGES[route.page] ? route.page : "playground";
  useEffect(() => { if (server.is === "ready") setHasStarted(true); }, [server.is]);
  const models = useLoad(
    async () => (server.base ? (await get("v1/models?limit=1")).data[0] : null), [server.base],
  );
  const main = useRef();
  useEffect(() => {
    document.title = `${PAGES[name].title} · Overtone`;
    if (document.activeElement !== document.body) main.current.focus();
  }, [name]);
  const forget = () => { forgetKey(); location.reload(); };
  return html`
    <${Heading} page=${name} server=${server} onForget=${forget} />
    <main id="main" tabindex="-1" ref=${main} aria-busy=${!models.data}>
      <h1 class="only-read">${PAGES[name].title}</h1>
      ${server.is !== "ready" && html`<${Notice} kind=${server.is === "away" ? "bad" : "wait"}>${server.why}<//>`}
      <${Notice} error=${models.error} retry=${models.reload} />
      <${Body} name=${name} route=${route} base=${models.data} hasStarted=${hasStarted} />
    </main>
    <footer class="foot"><a href="docs">API</a><a href="openapi.json">openapi.json</a><a href="metrics">metrics</a></footer>
    <${KeyDialog} />`;
}

render(html`<${App} />`, document.getElementById("app"));

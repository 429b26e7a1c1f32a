// What the server does now: rates, latency, queue, memory, and which adapters are the busiest.
import { get } from "../api.js";
import { Chart } from "../components/chart.js";
import { Notice } from "../components/notice.js";
import { bytes, duration, figure, percent } from "../format.js";
import { usePoll } from "../loading.js";
import { html, useMemo, useRef, useState } from "../view.js";
import { Busiest } from "./live/busiest.js";
import { busiest, rates } from "./live/rates.js";

const EVERY_MS = 1000;
//: Rates are taken over so many looks, and charts show so many.
const WINDOW = 5;
const KEPT = 180;

export function Page() {
  const looks = useRef([]);
  const [state, setState] = useState({ now: null, history: [], error: null });
  usePoll(async () => {
    try {
      const now = await get("metrics/adapters?limit=50");
      if (looks.current.at(-1)?.time > now.time) looks.current = []; // the server was started again
      looks.current = [...looks.current, now].slice(-WINDOW);
      const before = looks.current[0];
      const seconds = Math.max(0.001, now.time - before.time);
      const found = rates(before, now, seconds, now.first_token_bounds_s);
      const point = { at: Date.now() / 1000, running: now.running, waiting: now.waiting, ...found };
      setState(({ history }) => ({ now, found, rows: busiest(before, now, seconds), history: [...history, point].slice(-KEPT), error: null }));
    } catch (error) {
      setState((old) => ({ ...old, error }));
    }
  }, EVERY_MS);
  const { now, found, rows, history, error } = state;
  return html`<${Notice} error=${error} />
    ${now && html`
      <${Tiles} now=${now} found=${found} />
      <div class="two"><${Speed} history=${history} /><${Queue} history=${history} /></div>
      <${Memory} caches=${now.caches} />
      <${Busiest} rows=${rows} />`}`;
}

function Tiles({ now, found }) {
  const tiles = [
    ["Tokens/s", figure(found.tokens)],
    ["Requests/s", figure(found.requests)],
    ["First token, p50", duration(found.median)],
    ["First token, p95", duration(found.late)],
    ["Running", `${now.running} of ${now.max_running}`],
    ["Waiting", now.waiting],
    ["Cache in use", percent(now.kv_usage)],
  ];
  return html`<dl class="tiles">${tiles.map(([name, value]) => html`<div class="panel" key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function line(history, field, name, colour) {
  return { name, colour, dots: false, xs: history.map((one) => one.at), ys: history.map((one) => one[field]) };
}

function Speed({ history }) {
  const lines = useMemo(() => [line(history, "tokens", "generated tokens/s", "--s1"), line(history, "prompt", "prompt tokens/s", "--s2")], [history]);
  return html`<section class="panel" aria-label="Speed"><header><h2>Tokens per second</h2></header>
    <${Chart} lines=${lines} told="Tokens per second, now ${figure(history.at(-1).tokens)}" x="" height=${190} ofTime /></section>`;
}

function Queue({ history }) {
  const lines = useMemo(() => [line(history, "running", "running", "--s3"), line(history, "waiting", "waiting", "--s4")], [history]);
  return html`<section class="panel" aria-label="Queue"><header><h2>Running and waiting</h2></header>
    <${Chart} lines=${lines} told="Now ${history.at(-1).running} run and ${history.at(-1).waiting} wait" x="" height=${190} ofTime /></section>`;
}

const CACHES = { coefficients: "Coefficients on the device", merged: "Merged weights", host: "Copies in host memory" };

function Memory({ caches }) {
  return html`<section class="panel" aria-label="Memory"><header><h2>Adapters in memory</h2></header>
    <table class="table"><thead><tr><th>Where</th><th class="number">Adapters</th><th class="number">Bytes</th><th class="number">Found</th><th class="number">Loaded</th><th class="number">Evicted</th></tr></thead>
      <tbody>${Object.entries(caches).map(([name, cache]) => html`<tr key=${name}><td class="name">${CACHES[name] ?? name}</td>
        <td class="number" data-label="Adapters">${cache.entries}</td><td class="number" data-label="Bytes">${bytes(cache.bytes)}</td>
        <td class="number" data-label="Found">${cache.hits}</td><td class="number" data-label="Loaded">${cache.misses}</td>
        <td class="number" data-label="Evicted">${cache.evictions}</td></tr>`)}</tbody></table></section>`;
}

// One job: its loss, what became of it, its checkpoints, and what happened, the newest first.
import { get } from "../../api.js";
import { Notice } from "../../components/notice.js";
import { figure, time } from "../../format.js";
import { useLoad, usePoll } from "../../loading.js";
import { linkTo } from "../../route.js";
import { html } from "../../view.js";
import { Checkpoints } from "./checkpoints.js";
import { isOver } from "./curves.js";
import { Losses } from "./jobs.js";
import { Moves, useMoves } from "./moves.js";
import { Progress } from "./progress.js";

const CHECKPOINTS = 20;

export function Job({ id }) {
  const { data, error, reload } = useLoad(() => read(id), [id]);
  const { failed, move } = useMoves(reload);
  const isOn = data && !isOver(data.job);
  usePoll(async () => { if (isOn) await reload(); }, 2000, [isOn]);
  const back = html`<div><a href=${linkTo("training")}>← All jobs</a></div>`;
  if (!data) return html`${back}<${Notice} error=${error} retry=${reload} />`;
  const { job, events, checkpoints } = data;
  return html`${back}
    <section class="panel" aria-label="Job">
      <header><h2>${job.adapter.name}</h2><span class="badge ${job.status}">${job.status.replace("_", " ")}</span><${Moves} job=${job} move=${move} /></header>
      <${Notice} error=${failed} />
      <${Notice} error=${job.error && { status: 1, ...job.error }} />
      <${Progress} job=${job} />
      <${Facts} job=${job} />
      <${Losses} jobs=${[job]} onEnd=${reload} />
    </section>
    ${job.overtone.result && html`<${Result} job=${job} />`}
    <div class="two">
      <${Checkpoints} checkpoints=${checkpoints} />
      <section class="panel" aria-label="Events"><header><h2>What happened</h2></header>
        <ul class="events" tabindex="0">${events.map((event) => html`<li key=${event.id} class=${event.level}><time>${time(event.created_at)}</time> ${event.message}</li>`)}</ul></section>
    </div>`;
}

async function read(id) {
  const path = `v1/fine_tuning/jobs/${encodeURIComponent(id)}`;
  const [job, events, checkpoints] = await Promise.all([get(path), get(`${path}/events?limit=50`), get(`${path}/checkpoints?limit=${CHECKPOINTS}`)]);
  return { job, events: events.data, checkpoints: checkpoints.data };
}

function Facts({ job }) {
  const hyper = job.method.supervised.hyperparameters;
  const facts = [
    ["Method", job.adapter.method],
    ["Settings", Object.entries(job.adapter.config).map(([k, v]) => `${k} = ${v}`).join(", ") || "the preset's"],
    ["Epochs", hyper.n_epochs], ["Batch size", hyper.batch_size], ["Rate × preset", hyper.learning_rate_multiplier],
    ["Seed", job.seed], ["Worker", job.overtone.worker ?? "–"], ["Attempts", job.overtone.attempts],
  ];
  return html`<dl class="facts">${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** The held-out figures of the new version beside the base's. */
function Result({ job }) {
  const { metrics, reference } = job.overtone.result;
  const { base = {}, ...own } = metrics;
  const rows = Object.entries(own).filter(([, value]) => typeof value === "number");
  const better = job.overtone.is_better_than_base;
  return html`<section class="panel" aria-label="Result">
    <header><h2>${reference}</h2>${better !== null && html`<span class="badge ${better ? "succeeded" : "failed"}">${better ? "better than the base" : "no better than the base"}</span>`}</header>
    ${rows.length > 0 && html`<table class="table"><thead><tr><th>On held-out examples</th><th class="number">Adapter</th><th class="number">Base</th></tr></thead>
      <tbody>${rows.map(([name, value]) => html`<tr key=${name}><td class="name">${name}</td>
        <td class="number" data-label="Adapter">${figure(value, 4)}</td><td class="number" data-label="Base">${figure(base[name], 4)}</td></tr>`)}</tbody></table>`}
  </section>`;
}

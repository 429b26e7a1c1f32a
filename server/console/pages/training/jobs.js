// All jobs of the caller, with the losses of those that are ticked.
import { get } from "../../api.js";
import { Chart } from "../../components/chart.js";
import { Notice } from "../../components/notice.js";
import { many, time } from "../../format.js";
import { useLoad, usePoll } from "../../loading.js";
import { linkTo } from "../../route.js";
import { html, useMemo, useState } from "../../view.js";
import { Moves, useMoves } from "./moves.js";
import { isOver, linesOf, MOST_FOLLOWED, useCurves } from "./curves.js";
import { Progress } from "./progress.js";
import { Start } from "./start.js";

const SHOWN = 30;

export function Jobs({ base }) {
  const { data, error, reload } = useLoad(() => get(`v1/fine_tuning/jobs?limit=${SHOWN}`), []);
  const workers = useLoad(() => get("v1/workers"), []);
  const { failed, move } = useMoves(reload);
  const jobs = data?.data ?? [];
  const isAnyOn = jobs.some((job) => !isOver(job));
  usePoll(async () => { if (isAnyOn) await Promise.all([reload(), workers.reload()]); }, 2000, [isAnyOn]);
  const [ticked, setTicked] = useState(null);
  const chosen = ticked ?? jobs.slice(0, 2).map((job) => job.id);
  const tick = (id) => setTicked(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id].slice(-MOST_FOLLOWED));
  const shown = jobs.filter((job) => chosen.includes(job.id));
  const started = (job) => {
    setTicked([...chosen, job.id].slice(-MOST_FOLLOWED));
    reload();
  };
  const alive = workers.data?.data.filter((worker) => worker.model === base.id);
  return html`
    <${Start} base=${base} onStarted=${started} />
    ${alive?.length === 0 && html`<${Notice} kind="wait">No worker trains for ${base.id} now: jobs wait until one is started, as with <code>overtone worker</code>.<//>`}
    <section class="panel" aria-label="Jobs">
      <header><h2>Jobs</h2>${alive && alive.length > 0 && html`<span class="hint">${many(alive.length, "worker")}, ${alive.filter((w) => w.is_busy).length} busy</span>`}</header>
      <${Notice} error=${error} retry=${reload} />
      <${Notice} error=${failed} />
      ${shown.length > 0 && html`<${Losses} jobs=${shown} onEnd=${reload} />`}
      ${data && (jobs.length
        ? html`<${Table} jobs=${jobs} chosen=${shown.map((job) => job.id)} onTick=${tick} move=${move} />`
        : html`<div class="empty"><p>No jobs yet.</p><p>Drop a file above: a few dozen examples are enough to see something.</p></div>`)}
    </section>`;
}

const COLOURS = ["--s1", "--s2", "--s3", "--s4"];

export function Losses({ jobs, onEnd }) {
  const curves = useCurves(jobs, onEnd);
  const lines = useMemo(
    () => jobs.flatMap((job, i) => linesOf(job.adapter.name, COLOURS[i % COLOURS.length], curves[job.id]?.points)),
    [curves, jobs.map((job) => job.id).join()],
  );
  if (!lines.length) return html`<p class="hint" role="status">No step yet.</p>`;
  const told = lines.map((line) => `${line.name} ${line.ys.at(-1).toPrecision(3)} at step ${line.xs.at(-1)}`).join("; ");
  return html`<${Chart} lines=${lines} told="Loss by step: ${told}" y="loss" />`;
}

function Table({ jobs, chosen, onTick, move }) {
  return html`<table class="table">
    <thead><tr><th>Adapter</th><th>State</th><th>Progress</th><th>Method</th><th>Filed</th><th><span class="only-read">Actions</span></th></tr></thead>
    <tbody>${jobs.map((job) => html`<tr key=${job.id}>
      <td class="name"><label class="tick"><input type="checkbox" checked=${chosen.includes(job.id)} onChange=${() => onTick(job.id)}
        aria-label="Chart ${job.adapter.name}" /></label> <a href=${linkTo("training", [job.id])}>${job.adapter.name}</a></td>
      <td data-label="State"><span class="badge ${job.status}">${job.status.replace("_", " ")}</span></td>
      <td data-label="Progress"><${Progress} job=${job} /></td>
      <td data-label="Method">${job.adapter.method}</td>
      <td data-label="Filed">${time(job.created_at)}</td>
      <td class="acts"><${Moves} job=${job} move=${move} /></td>
    </tr>`)}</tbody></table>`;
}

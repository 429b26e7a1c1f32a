// A job's checkpoints, the newest first, with what the adapter answered at each to held-out prompts.
import { time } from "../../format.js";
import { html } from "../../view.js";

const CUT = { length: "cut at 48 tokens", time: "cut: the samples' time was over" };
const SOURCES = { validation_file: "the validation file", training_file: "the part of the training file that is held out" };
const LEFT_OUT = {
  time: "No samples: they have a tenth of the job's time.",
  failed: "No samples: see what happened.",
  no_prompts: "No samples: no example has a prompt.",
};

/** The newest samples are open. */
export function Checkpoints({ checkpoints }) {
  const newest = checkpoints.findIndex((one) => one.overtone.samples.length);
  return html`<section class="panel" aria-label="Checkpoints"><header><h2>Checkpoints</h2></header>
    ${checkpoints.length
      ? html`<ul class="checkpoints">${checkpoints.map((one, i) => html`<li key=${one.id}><${Checkpoint} checkpoint=${one} isOpen=${i === newest} /></li>`)}</ul>`
      : html`<p class="hint">None are kept: a job writes them while it runs, and goes on from the last one.</p>`}</section>`;
}

function Checkpoint({ checkpoint, isOpen }) {
  const { samples, samples_source: source, samples_left_out: why } = checkpoint.overtone;
  const name = html`step ${checkpoint.step_number} <time class="hint">${time(checkpoint.created_at)}</time>`;
  if (!samples.length) return html`<p>${name}${LEFT_OUT[why] && html` <span class="hint">${LEFT_OUT[why]}</span>`}</p>`;
  return html`<details open=${isOpen}>
    <summary>${name}</summary>
    <p class="hint">Prompts of ${SOURCES[source]}, answered by the adapter as it was then.</p>
    ${samples.map((sample, i) => html`<${Sample} key=${i} sample=${sample} />`)}
  </details>`;
}

function Sample({ sample }) {
  const cut = CUT[sample.finish_reason];
  return html`<dl class="sample">
    <dt>Prompt</dt><dd class="mono" dir="auto">${sample.prompt}</dd>
    <dt>Expected</dt><dd dir="auto">${sample.expected}</dd>
    <dt>Answer</dt><dd dir="auto">${sample.answer || html`<span class="hint">nothing</span>`}${cut && html` <small class="hint">(${cut})</small>`}</dd>
  </dl>`;
}

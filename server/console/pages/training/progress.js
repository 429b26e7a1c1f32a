// How far a job is, and how long it will take.
import { duration } from "../../format.js";
import { html } from "../../view.js";

export function Progress({ job }) {
  const { step, num_steps: most, seconds_left: left } = job.overtone.progress;
  if (!most) return html`<span class="hint">–</span>`;
  return html`<span class="progress"><progress max=${most} value=${step} aria-label="Steps done"></progress>
    <span>${step}/${most}${job.status === "running" && left !== null ? `, ${duration(left)} left` : ""}</span></span>`;
}

// What can be done with a job: pause, resume, cancel; with its adapter: try it.
import { call } from "../../api.js";
import { linkTo } from "../../route.js";
import { html, useState } from "../../view.js";

const CAN = {
  pause: ["validating_files", "queued", "running"],
  resume: ["paused"],
  cancel: ["validating_files", "queued", "running", "paused"],
};
const WORDS = { pause: "Pause", resume: "Resume", cancel: "Cancel" };

/** Returns { failed, move(job, verb) }; `onMoved` runs after each. */
export function useMoves(onMoved) {
  const [failed, setFailed] = useState(null);
  const move = async (job, verb) => {
    setFailed(null);
    try {
      await call(`v1/fine_tuning/jobs/${job.id}/${verb}`, { method: "POST" });
    } catch (error) {
      setFailed(error);
    }
    onMoved();
  };
  return { failed, move };
}

export function Moves({ job, move }) {
  const can = Object.keys(CAN).filter((verb) => CAN[verb].includes(job.status));
  return html`${can.map((verb) => html`
      <button key=${verb} class=${verb === "cancel" ? "quiet danger" : "quiet"} aria-label="${WORDS[verb]} ${job.adapter.name}"
        onClick=${() => move(job, verb)}>${WORDS[verb]}</button>`)}
    ${job.fine_tuned_model && html`<a class="button" aria-label="Try ${job.fine_tuned_model}"
      href=${linkTo("playground", [], { models: `${job.model},${job.fine_tuned_model}` })}>Try it</a>`}`;
}

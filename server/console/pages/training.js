// Training: a new job, all jobs with their losses, or one job by its id.
import { html } from "../view.js";
import { Job } from "./training/job.js";
import { Jobs } from "./training/jobs.js";

export function Page({ route, base }) {
  const [id] = route.parts;
  return id ? html`<${Job} key=${id} id=${id} base=${base} />` : html`<${Jobs} base=${base} />`;
}

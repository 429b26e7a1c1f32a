// The numbers of several jobs: those that run are followed, the others are read once.
import { events, get } from "../../api.js";
import { useEffect, useRef, useState } from "../../view.js";

const JOBS = "v1/fine_tuning/jobs";
const PAGE = 1000;
const MOST_PAGES = 20;
const SHOWN_EVERY_MS = 250;
const AGAIN_MS = 3000;
//: A browser keeps six connections to a server, and the page itself needs some.
export const MOST_FOLLOWED = 4;

export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

/** Returns id -> { points, left } of these jobs, at most `MOST_FOLLOWED`; `onEnd` is told of ends. */
export function useCurves(jobs, onEnd = () => {}) {
  const [curves, setCurves] = useState({});
  const held = useRef({});
  const chosen = jobs.slice(0, MOST_FOLLOWED);
  const key = chosen.map((job) => `${job.id}${isOver(job) ? "." : ""}`).join(" ");
  useEffect(() => {
    const control = new AbortController();
    let timer = null;
    const show = () => {
      timer ??= setTimeout(() => {
        timer = null;
        setCurves({ ...held.current });
      }, SHOWN_EVERY_MS);
    };
    const note = (id, change) => {
      held.current[id] = change(held.current[id] ?? { points: [], left: null });
      show();
    };
    for (const job of chosen) {
      const work = isOver(job) ? readAll(job.id, note) : follow(job.id, note, control.signal, onEnd);
      work.catch(() => {});
    }
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [key]);
  return curves;
}

async function readAll(id, note) {
  const points = [];
  for (let after = "", i = 0; i < MOST_PAGES; i += 1) {
    const page = await get(`${JOBS}/${id}/metrics?${new URLSearchParams({ limit: PAGE, ...(after && { after }) })}`);
    points.push(...page.data);
    if (!page.has_more) break;
    after = page.last_id;
  }
  note(id, () => ({ points, left: null }));
}

async function follow(id, note, signal, onEnd) {
  note(id, () => ({ points: [], left: null }));
  let step = -1;
  while (!signal.aborted) {
    try {
      for await (const event of events(`${JOBS}/${id}/events?stream=true&after_step=${step}`, { signal })) {
        if (event.error) throw new Error(event.error.message);
        if (event.type !== "metrics") continue;
        step = event.data.step;
        note(id, ({ points }) => ({ points: [...points, event.data], left: event.data.seconds_left }));
      }
      onEnd();
      return;
    } catch (error) {
      if (signal.aborted || (error.status >= 400 && error.status < 500)) throw error;
      await new Promise((wake) => setTimeout(wake, AGAIN_MS)); // the server is away for a moment
    }
  }
}

/** Returns two lines of a chart for a job: the loss of each step, and the held-out one. */
export function linesOf(name, colour, points = []) {
  const of = (field) => points.filter((point) => Number.isFinite(point[field]));
  const line = (field, words, dots) => {
    const found = of(field);
    return { name: `${name}: ${words}`, colour, dots, xs: found.map((p) => p.step), ys: found.map((p) => p[field]) };
  };
  return [line("train_loss", "training", false), line("eval_loss", "held out", true)].filter((one) => one.xs.length);
}

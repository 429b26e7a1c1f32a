// One prompt, answered by the base and adapters side by side, as the tokens come.
import { Choice, Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { html, useEffect, useRef, useState } from "../../view.js";
import { Answer } from "./answer.js";
import { Chosen } from "./chosen.js";
import { compared } from "./comparing.js";
import { Code } from "./code.js";
import { Sampling, sampled, DEFAULTS } from "./sampling.js";

const KINDS = [["chat", "Chat"], ["completion", "Completion"]];
const KEPT = "overtone.prompt";

export function Generation({ base, models: given }) {
  const chats = base.overtone.chats;
  const [models, setModels] = useState(given);
  const [kind, setKind] = useState(chats ? "chat" : "completion");
  const [prompt, setPrompt] = useState(sessionStorage.getItem(KEPT) ?? "");
  const [system, setSystem] = useState("");
  const [sampling, setSampling] = useState(DEFAULTS);
  const run = useRun();
  useEffect(() => sessionStorage.setItem(KEPT, prompt), [prompt]);

  const body = bodyOf({ models, kind, prompt, system, sampling });
  const ask = (event) => {
    event?.preventDefault();
    if (prompt && models.length) run.start(body);
  };
  const press = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
  };
  return html`
    <form class="panel" onSubmit=${ask}>
      <div class="row">
        ${chats
          ? html`<${Choice} label="Kind of request" value=${kind} onValue=${setKind} options=${KINDS} />`
          : html`<span class="hint">This base has no chat template: it completes texts.</span>`}
      </div>
      <${Chosen} base=${base.id} models=${models} onModels=${setModels} />
      ${kind === "chat" && html`<${Field} label="System message" value=${system} onValue=${setSystem} placeholder="none" />`}
      <${Field} area label=${kind === "chat" ? "Message" : "Text to go on from"} value=${prompt} onValue=${setPrompt} onKeyDown=${press} required />
      <${Sampling} values=${sampling} onValues=${setSampling} defaults=${base.overtone.sampling_defaults} />
      <div class="row">
        <button class="main" disabled=${run.isOn || !models.length}>${models.length > 1 ? `Ask ${models.length} models` : "Ask"}</button>
        <button type="button" disabled=${!run.isOn} onClick=${run.stop}>Stop</button>
        <span class="hint">Ctrl + Enter asks</span>
      </div>
    </form>
    <${Notice} error=${run.error} />
    <${Answers} run=${run} />
    ${prompt && models.length > 0 && html`<${Code} body=${body} />`}
    <div class="only-read" role="status">${run.told}</div>`;
}

function Answers({ run }) {
  if (!run.answers.length) {
    return !run.error && html`<div class="empty"><p>Each model's answer comes here, token by token.</p>
      <p>All are asked in one request, and answered in one batch.</p></div>`;
  }
  return html`<div class="answers" aria-busy=${run.isOn}>
    ${run.answers.map((one, i) => html`<${Answer} key=${i} number=${i} answer=${one} isOn=${run.isOn} />`)}
  </div>`;
}

/** One comparison at a time: { start, stop, isOn, answers, error, told }. */
function useRun() {
  const [state, setState] = useState({ isOn: false, answers: [], error: null, told: "" });
  const control = useRef(null);
  useEffect(() => () => control.current?.abort(), []);
  const start = async (body) => {
    control.current?.abort();
    const mine = new AbortController();
    control.current = mine;
    const show = (change) => control.current === mine && setState((old) => ({ ...old, ...change }));
    show({ isOn: true, answers: [], error: null, told: "" });
    try {
      await compared(body, mine.signal, (answers) => show({ answers }));
      show({ told: "All answers are there" });
    } catch (error) {
      if (error.name === "AbortError") show({ told: "Stopped" });
      else show({ error });
    }
    show({ isOn: false });
  };
  return { ...state, start, stop: () => control.current?.abort() };
}

function bodyOf({ models, kind, prompt, system, sampling }) {
  const user = { role: "user", content: prompt };
  const messages = system ? [{ role: "system", content: system }, user] : [user];
  return { models, ...(kind === "chat" ? { messages } : { prompt }), ...sampled(sampling) };
}

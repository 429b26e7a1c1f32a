// The base and adapters side by side, as the tokens come: one text to go on from, or a chat in which
// each has a history of its own.
import { Choice, Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { useKept } from "../../kept.js";
import { html, useRef } from "../../view.js";
import { Chosen } from "./chosen.js";
import { Code } from "./code.js";
import { Answers, Conversation } from "./conversation.js";
import { chatRequests } from "./history.js";
import { Sampling, sampled, DEFAULTS } from "./sampling.js";
import { useTurns } from "./turns.js";

const KINDS = [["chat", "Chat"], ["completion", "Completion"]];

/** `place`: the models that the address names; what was asked there is kept for it. */
export function Generation({ base, models: given, place }) {
  const chats = base.overtone.chats;
  const of = (name) => `${name} of ${base.id}: ${place}`;
  const [models, setModels] = useKept(of("models"), given);
  const [kind, setKind] = useKept("kind", "chat");
  const [prompt, setPrompt] = useKept("prompt", "");
  const [system, setSystem] = useKept(of("system"), "");
  const [sampling, setSampling] = useKept("sampling", DEFAULTS);
  const all = { chat: useTurns(of("chat")), completion: useTurns(of("completion")) };

  const run = all[chats ? kind : "completion"];
  const isChat = run === all.chat;
  const last = run.turns.at(-1);
  const requestsOf = (before, said) => (isChat
    ? chatRequests(models, before, said, system, sampled(sampling))
    : [{ models, prompt: said, ...sampled(sampling) }]);
  const send = async (before, said) => {
    const isAsked = await run.ask(before, said, models, requestsOf(before, said));
    if (!isAsked && isChat) setPrompt((now) => now || said); // it can be mended and sent again
  };
  const ask = () => {
    if (!prompt || !models.length || (isChat && run.isOn)) return;
    send(isChat ? run.turns : [], prompt);
    if (isChat) setPrompt("");
  };
  const takeBack = () => {
    setPrompt(last.said);
    run.takeBack();
  };
  const shown = models.length > 0 && codeOf(isChat, run.turns, prompt, requestsOf);
  return html`
    <section class="panel" aria-label="What is asked">
      <div class="row">
        ${chats
          ? html`<${Choice} label="Kind of request" value=${kind} onValue=${setKind} options=${KINDS} />`
          : html`<span class="hint">This base has no chat template: it completes texts.</span>`}
      </div>
      <${Chosen} base=${base.id} models=${models} onModels=${setModels} />
      ${isChat && html`<${Field} label="System message" value=${system} onValue=${setSystem} placeholder="none" />`}
      <${Sampling} values=${sampling} onValues=${setSampling} defaults=${base.overtone.sampling_defaults} />
    </section>
    <div class="chat">
      ${isChat && html`<${Conversation} run=${run} />`}
      <${Composer} key="composer" isChat=${isChat} run=${run} count=${models.length} value=${prompt} onValue=${setPrompt} onAsk=${ask}
        onAgain=${() => send(run.turns.slice(0, -1), last.said)} onTakeBack=${takeBack} />
    </div>
    <${Notice} error=${run.error} />
    ${!isChat && last && html`<${Answers} answers=${last.answers} isOn=${run.isOn} />`}
    ${!last && !run.error && html`<div class="empty"><p>Each model's answer comes here, token by token.</p>
      <p>All are asked in one request, and answered in one batch.</p></div>`}
    ${shown && html`<${Code} requests=${shown} />`}
    <div class="only-read" role="status">${run.told}</div>`;
}

/** Returns the requests of what is being written, else of the last message; null for neither. */
function codeOf(isChat, turns, prompt, requestsOf) {
  const said = prompt || (isChat && turns.at(-1)?.said);
  return said ? requestsOf(prompt ? turns : turns.slice(0, -1), said) : null;
}

function Composer({ isChat, run, count, value, onValue, onAsk, onAgain, onTakeBack }) {
  const own = useRef(null);
  const isBegun = isChat && run.turns.length > 0;
  const submit = (event) => {
    event.preventDefault();
    onAsk();
  };
  const press = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
  };
  const thenWrite = (act) => () => {
    act();
    own.current.querySelector("textarea").focus();
  };
  return html`<form class=${isBegun ? "panel composer" : "panel"} ref=${own} onSubmit=${submit} aria-label="Ask">
    <${Field} area label=${isChat ? (isBegun ? "Next message" : "Message") : "Text to go on from"} value=${value} onValue=${onValue} onKeyDown=${press} required />
    <div class="row">
      <button class="main" disabled=${run.isOn || !count}>${count > 1 ? `Ask ${count} models` : "Ask"}</button>
      <button type="button" disabled=${!run.isOn} onClick=${run.stop}>Stop</button>
      ${isBegun && html`
        <button type="button" disabled=${run.isOn || !count} onClick=${onAgain}>Answer again</button>
        <button type="button" disabled=${run.isOn} onClick=${thenWrite(onTakeBack)}>Take back</button>
        <button type="button" onClick=${thenWrite(run.clear)}>New chat</button>`}
      <span class="hint">Ctrl + Enter asks</span>
    </div>
  </form>`;
}

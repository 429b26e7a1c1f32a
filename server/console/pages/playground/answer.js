// One model's answer: what answered, the text, and how fast.
import { Copy } from "../../components/copy.js";
import { Notice } from "../../components/notice.js";
import { duration, figure, shortDigest } from "../../format.js";
import { html } from "../../view.js";
import { rate } from "./comparing.js";

const REASONS = { stop: "ended by itself", length: "cut at max tokens", tool_calls: "calls a tool" };

/** `turn`: the message's number where it is not the newest; such an answer is shown without figures. */
export function Answer({ answer, number, isOn, turn = null }) {
  const { by, error } = answer;
  if (turn) return html`<${Earlier} answer=${answer} number=${number} turn=${turn} />`;
  return html`<section class="panel answer s${number}" aria-label="Answer of ${answer.model}">
    <header><h2>${answer.model}</h2>${by && html`<span class="badge">${by.mode}</span>`}</header>
    <p class="hint mono">${by ? identity(by) : "\u00a0"}</p>
    <${Notice} error=${error && { status: 1, ...error }} />
    ${!error && html`<div class="text" dir="auto">${answer.text}${isOn && !answer.reason && !answer.isOver && html`<span class="caret" aria-hidden="true"></span>`}</div>`}
    <dl class="facts small">
      <div><dt>First token</dt><dd>${duration(answer.firstS)}</dd></div>
      <div><dt>Tokens/s</dt><dd>${figure(rate(answer))}</dd></div>
      <div><dt>Tokens</dt><dd>${answer.tokens ?? (answer.isOver && !error ? "stopped" : "–")}</dd></div>
    </dl>
    <div class="row">
      <span class="hint">${REASONS[answer.reason] ?? ""}</span>
      <span class="push">${answer.text && html`<${Copy} text=${answer.text} />`}</span>
    </div>
  </section>`;
}

function Earlier({ answer, number, turn }) {
  return html`<section class="panel answer earlier s${number}" aria-label="Answer of ${answer.model} to message ${turn}">
    <h2>${answer.model}</h2>
    <${Notice} error=${answer.error && { status: 1, ...answer.error }} />
    <div class="text" dir="auto">${answer.text}</div>
  </section>`;
}

function identity(by) {
  return by.adapter ? `version ${by.version} · ${shortDigest(by.digest)}` : "the base, unchanged";
}

// Asks for the API key, when the server wants one; it is kept for this tab alone.
import { onKeyWanted } from "../api.js";
import { Dialog } from "./dialog.js";
import { Notice } from "./notice.js";
import { html, useEffect, useState } from "../view.js";

export function KeyDialog() {
  const [question, setQuestion] = useState(null);
  const [key, setKey] = useState("");
  useEffect(() => onKeyWanted((message) => new Promise((give) => {
    setKey("");
    setQuestion({ message, give });
  })), []);
  if (!question) return null;
  const end = (given) => {
    setQuestion(null);
    question.give(given);
  };
  const submit = (event) => {
    event.preventDefault();
    if (key.trim()) end(key.trim());
  };
  return html`<${Dialog} title="This server asks for an API key" onClose=${() => end(null)}>
    <form onSubmit=${submit}>
      <${Notice} kind="wait">${question.message}<//>
      <label class="field"><span>API key</span>
        <input type="password" autocomplete="off" required value=${key} onInput=${(e) => setKey(e.target.value)} />
      </label>
      <p class="hint">It is kept until this tab is closed, and sent to this server only.</p>
      <div class="row end">
        <button type="button" onClick=${() => end(null)}>Not now</button>
        <button class="main">Use this key</button>
      </div>
    </form>
  <//>`;
}

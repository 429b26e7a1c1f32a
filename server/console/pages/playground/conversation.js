// The turns of a chat, the oldest first; the newest with each answer's figures.
import { html, useEffect, useRef } from "../../view.js";
import { Answer } from "./answer.js";

export function Conversation({ run }) {
  const count = run.turns.length;
  const before = useRef(count);
  const newest = useRef(null);
  useEffect(() => {
    if (count > Math.max(1, before.current)) newest.current.scrollIntoView();
    before.current = count;
  }, [count]);
  return run.turns.map(({ said, answers }, i) => html`<article class="turn" key=${i} ref=${i + 1 === count ? newest : null} aria-label="Message ${i + 1}">
    <p class="said" dir="auto"><b>You</b> ${said}</p>
    <${Answers} answers=${answers} isOn=${run.isOn} turn=${i + 1 < count ? i + 1 : null} />
  </article>`);
}

export function Answers({ answers, isOn, turn = null }) {
  return html`<div class="answers" aria-busy=${isOn && !turn}>
    ${answers.map((one, i) => html`<${Answer} key=${i} number=${i} answer=${one} isOn=${isOn} turn=${turn} />`)}
  </div>`;
}

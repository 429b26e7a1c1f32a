// Answers of bases that label and embed.
import { figure } from "../../format.js";
import { html } from "../../view.js";

const SHOWN = 6;

/** The labels of each input, the likeliest first. */
export function Labels({ data, inputs }) {
  return data.map((one, i) => html`<div key=${i} class="labelled">
    <h3>${inputs[i]?.name ?? i}</h3>
    ${[...one.scores].sort((a, b) => b.score - a.score).slice(0, SHOWN).map((each) => html`
      <div class="score" key=${each.label}><span>${each.label}</span>
        <span class="bar"><span style=${{ width: `${100 * share(each.score)}%` }}></span></span>
        <span class="number">${figure(each.score)}</span></div>`)}
  </div>`);
}

const share = (score) => Math.min(1, Math.max(0, score)); // of a regression it is any number

/** The cosine of the angle between any two vectors. */
export function Nearness({ data, inputs }) {
  const vectors = data.map((one) => unit(one.embedding));
  const name = (i) => inputs[i]?.name ?? String(i + 1);
  return html`<p class="hint">${vectors[0].length} numbers a text. Cosines:</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Cosines"><table class="cosines">
      <thead><tr><td></td>${vectors.map((_, i) => html`<th key=${i} scope="col" title=${name(i)}>${i + 1}</th>`)}</tr></thead>
      <tbody>${vectors.map((a, i) => html`<tr key=${i}><th scope="row">${i + 1}. ${name(i)}</th>
        ${vectors.map((b, j) => html`<td key=${j}>${figure(dot(a, b))}</td>`)}</tr>`)}</tbody>
    </table></div>`;
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function unit(vector) {
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
}

// Where an adapter is in memory; loaded ahead of its first request, or kept there.
import { adapterPath, call } from "../../api.js";
import { html } from "../../view.js";

const WORDS = {
  factored: "factored: its coefficients lie beside the base's weights",
  merged: "merged: it has weights of its own, made from the base's",
};

export function Residency({ name, entry, act }) {
  const ask = (method, verb) => () => act(() => call(adapterPath(name, verb), { method }));
  return html`<section class="panel" aria-label="In memory">
    <header><h2>In memory</h2></header>
    ${entry.residency.length
      ? html`<ul class="plain">${entry.residency.map((mode) => html`<li key=${mode}>${WORDS[mode]}</li>`)}</ul>`
      : html`<p class="hint">Not on this server, as far as your key may know; the first request loads it.</p>`}
    <div class="row">
      <button onClick=${ask("POST", "warm")}>Load now</button>
      <button onClick=${ask("PUT", "pin")}>Keep in memory</button>
      <button onClick=${ask("DELETE", "pin")}>Let it be evicted</button>
    </div>
  </section>`;
}

// The models of a comparison: the base and up to four adapters, as tags, and a field for more.
import { ModelPicker } from "../../components/models.js";
import { html } from "../../view.js";

export const MOST = 5;

export function Chosen({ base, models, onModels }) {
  const without = (name) => onModels(models.filter((one) => one !== name));
  return html`<div class="chosen">
    <${ModelPicker} label="Add an adapter" chosen=${models} most=${MOST} onChosen=${onModels} />
    <ul class="tags" aria-label="Models that are asked">
      ${models.map((name) => html`<li class="tag" key=${name}>
        ${name === base ? `${name} (the base)` : name}
        <button type="button" aria-label="Take ${name} out" onClick=${() => without(name)}>×</button>
      </li>`)}
      ${!models.includes(base) && models.length < MOST && html`<li key="+base">
        <button type="button" class="quiet" onClick=${() => onModels([base, ...models])}>Add the base</button></li>`}
    </ul>
  </div>`;
}

// Inputs with their names and hints.
import { html, useId } from "../view.js";

/** A named input; `onValue` is told its text, `options` makes it a choice. */
export function Field({ label, hint = null, value, onValue, options = null, area = false, ...rest }) {
  const own = useId();
  const said = { id: own, value, "aria-describedby": hint ? `${own}-hint` : null };
  const listen = { onInput: (event) => onValue(event.target.value), ...rest };
  return html`<div class="field">
    <label for=${own}>${label}</label>
    ${options
      ? html`<select ...${said} ...${listen}>${options.map(optionOf)}</select>`
      : area ? html`<textarea ...${said} ...${listen}></textarea>` : html`<input ...${said} ...${listen} />`}
    ${hint && html`<small id="${own}-hint" class="hint">${hint}</small>`}
  </div>`;
}

const optionOf = (option) => {
  const [value, text] = Array.isArray(option) ? option : [option, option];
  return html`<option key=${value} value=${value}>${text}</option>`;
};

/** One of a few, as buttons that are pressed. */
export function Choice({ label, value, onValue, options }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(([name, text]) => html`
      <button key=${name} type="button" aria-pressed=${name === value} onClick=${() => onValue(name)}>${text}</button>`)}
  </div>`;
}

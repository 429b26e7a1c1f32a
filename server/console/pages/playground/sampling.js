// How tokens are chosen; what is left empty is the base's own.
import { Field } from "../../components/field.js";
import { html } from "../../view.js";

export const DEFAULTS = {
  max_tokens: "64", temperature: "0", top_p: "", top_k: "", min_p: "", repetition_penalty: "", seed: "", stop: "",
};
const NUMBERS = [
  ["max_tokens", "Max tokens", { min: 1, step: 1 }],
  ["temperature", "Temperature", { min: 0, max: 2, step: "any" }],
  ["top_p", "Top p", { min: 0, max: 1, step: "any" }],
  ["top_k", "Top k", { min: -1, step: 1 }],
  ["min_p", "Min p", { min: 0, max: 1, step: "any" }],
  ["repetition_penalty", "Repetition penalty", { min: 0, step: "any" }],
  ["seed", "Seed", { step: 1 }],
];

export function Sampling({ values, onValues, defaults = {} }) {
  const set = (name) => (value) => onValues({ ...values, [name]: value });
  return html`<details>
    <summary>Sampling: ${inWords(values)}</summary>
    <div class="grid">
      ${NUMBERS.map(([name, label, limits]) => html`
        <${Field} key=${name} type="number" label=${label} value=${values[name]} onValue=${set(name)}
          placeholder=${defaults[name] ?? (name === "seed" ? "random" : "default")} ...${limits} />`)}
      <${Field} label="Stop at" value=${values.stop} onValue=${set("stop")} placeholder="no text" />
    </div>
  </details>`;
}

function inWords({ temperature, max_tokens: most, ...rest }) {
  const how = temperature === "0" ? "the likeliest token" : `temperature ${temperature || "of the base"}`;
  const more = Object.values(rest).filter(Boolean).length;
  return `${how}, ${most ? `at most ${most} tokens` : "as many as fit"}${more ? `, ${more} more` : ""}`;
}

/** Returns the fields of a body for what is not empty. */
export function sampled(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "");
  return Object.fromEntries(given.map(([name, value]) => [name, name === "stop" ? value : Number(value)]));
}

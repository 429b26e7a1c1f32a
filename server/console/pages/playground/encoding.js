// Bases that answer in one pass: labels of texts or pictures, or how near texts are to each other.
import { post } from "../../api.js";
import { Drop } from "../../components/drop.js";
import { Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { duration } from "../../format.js";
import { html, useState } from "../../view.js";
import { Chosen } from "./chosen.js";
import { Labels, Nearness } from "./encoded.js";

const WORDS = {
  "text classifier": { label: "Texts to label, one a line", path: "v1/classify", ask: "Classify" },
  "image classifier": { label: "Pictures", path: "v1/classify", ask: "Classify" },
  embedder: { label: "Texts to embed, one a line", path: "v1/embeddings", ask: "Embed" },
};

export function Encoding({ base, kind, models: given }) {
  const [models, setModels] = useState(given);
  const [text, setText] = useState("");
  const [pictures, setPictures] = useState([]);
  const [state, setState] = useState({ isOn: false, results: [] });
  const words = WORDS[kind];
  const isImages = kind === "image classifier";
  const inputs = isImages ? pictures : text.split("\n").map((t) => t.trim()).filter(Boolean).map((t) => ({ name: t, value: t }));
  const ask = async (event) => {
    event.preventDefault();
    setState({ isOn: true, results: [] });
    const input = inputs.map((one) => one.value);
    setState({ isOn: false, results: await Promise.all(models.map((model) => asked(words.path, model, input))), inputs });
  };
  const taken = async (files) => setPictures(await Promise.all(files.map(asPicture)));
  return html`
    <form class="panel" onSubmit=${ask}>
      <${Chosen} base=${base.id} models=${models} onModels=${setModels} />
      ${isImages
        ? html`<${Drop} label=${words.label} accept="image/*" multiple hint="PNG, JPEG or WebP; they are sent as they are." onFiles=${taken} />
            <div class="row">${pictures.map((one) => html`<img class="thumb" key=${one.name} src=${one.value} alt=${one.name} />`)}</div>`
        : html`<${Field} area label=${words.label} value=${text} onValue=${setText} />`}
      <div class="row"><button class="main" disabled=${state.isOn || !inputs.length || !models.length}>${words.ask}</button></div>
    </form>
    ${!state.results.length && html`<div class="empty"><p>Each model's answer comes here.</p></div>`}
    <div class="answers" aria-live="polite" aria-busy=${state.isOn}>
      ${state.results.map((result) => html`<${Result} key=${result.model} result=${result} inputs=${state.inputs} />`)}
    </div>`;
}

function Result({ result, inputs }) {
  const { model, answer, error, seconds } = result;
  const Shown = answer?.data[0]?.embedding ? Nearness : Labels;
  return html`<section class="panel" aria-label="Answer of ${model}">
    <header><h2>${model}</h2>${answer && html`<span class="badge">${answer.overtone.mode}</span>`}</header>
    <${Notice} error=${error} />
    ${answer && html`<${Shown} data=${answer.data} inputs=${inputs} /><p class="hint">${duration(seconds)}</p>`}
  </section>`;
}

async function asked(path, model, input) {
  const begun = performance.now();
  try {
    const answer = await post(path, { model, input });
    return { model, answer, seconds: (performance.now() - begun) / 1000 };
  } catch (error) {
    return { model, error };
  }
}

const asPicture = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve({ name: file.name, value: reader.result });
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

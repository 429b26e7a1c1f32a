// A new job: its file, its name, its method with the preset in words, and few numbers.
import { post } from "../../api.js";
import { Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { html, useState } from "../../view.js";
import { METHODS, presetOf } from "../methods.js";
import { TrainingFile } from "./file.js";

const METHOD_NAMES = ["auto", ...Object.keys(METHODS)];
const AUTO = "Tries fourierft, waveletft, loca and lora on a part of the file, and trains with the best.";

export function Start({ base, onStarted }) {
  const [file, setFile] = useState(null);
  const [form, setForm] = useState({ name: "", method: "fourierft", epochs: "3", batch: "8", rate: "1", alias: "" });
  const [error, setError] = useState(null);
  const [isSent, setIsSent] = useState(false);
  const set = (field) => (value) => setForm({ ...form, [field]: value });
  const start = async (event) => {
    event.preventDefault();
    setIsSent(true);
    setError(null);
    try {
      onStarted(await post("v1/fine_tuning/jobs", bodyOf(base, file, form)));
      setFile(null);
    } catch (fault) {
      setError(fault);
    }
    setIsSent(false);
  };
  return html`<form class="panel" onSubmit=${start} aria-label="Train an adapter">
    <header><h2>Train an adapter</h2></header>
    <${TrainingFile} file=${file} onFile=${setFile} />
    <div class="filters">
      <${Field} label="Adapter's name" value=${form.name} onValue=${set("name")} required hint="A known name gets a new version." />
      <${Field} label="Method" value=${form.method} onValue=${set("method")} options=${METHOD_NAMES} />
      <${Field} label="Epochs" type="number" min="1" max="1000" value=${form.epochs} onValue=${set("epochs")} hint="Passes over the file." />
      <${Field} label="Batch size" type="number" min="1" max="4096" value=${form.batch} onValue=${set("batch")} hint="Examples of one step." />
      <${Field} label="Rate × preset" type="number" min="0" step="any" value=${form.rate} onValue=${set("rate")} hint="1 is the preset's learning rate." />
      <${Field} label="Alias" value=${form.alias} onValue=${set("alias")} placeholder="none" hint="Moved to the new version." />
    </div>
    <p class="hint method"><b>${form.method}</b> ${METHODS[form.method]?.words ?? AUTO}
      ${form.method !== "auto" && ` Preset: ${presetOf(form.method)}; the learning rate and the scale follow from the base's width.`}</p>
    <${Notice} error=${error} />
    <div class="row"><button class="main" disabled=${!file || !form.name.trim() || isSent}>Start training</button>
      ${!file && html`<span class="hint">A checked file is needed first.</span>`}</div>
  </form>`;
}

function bodyOf(base, file, { name, method, epochs, batch, rate, alias }) {
  const given = { n_epochs: Number(epochs), batch_size: Number(batch), learning_rate_multiplier: Number(rate) };
  return {
    model: base.id,
    training_file: file.id,
    method: { type: "supervised", supervised: { hyperparameters: given } },
    adapter: { name: name.trim(), method, ...(alias.trim() && { alias: alias.trim() }) },
  };
}

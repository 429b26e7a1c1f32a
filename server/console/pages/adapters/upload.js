// Uploads an adapter: its two files are dropped or chosen, named, and sent with progress.
import { upload } from "../../api.js";
import { Drop } from "../../components/drop.js";
import { Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { bytes, percent } from "../../format.js";
import { linkTo } from "../../route.js";
import { html, useState } from "../../view.js";

const WEIGHTS = "adapter_model.safetensors";
const CONFIG = "adapter_config.json";

export function Upload({ onDone }) {
  const [files, setFiles] = useState({});
  const [name, setName] = useState("");
  const [alias, setAlias] = useState("");
  const [state, setState] = useState({});
  const take = (dropped) => {
    const { taken, fault } = sorted(dropped, files);
    setFiles(taken);
    setState({ error: fault && new Error(fault) });
  };
  const isReady = files.weights && files.config && name.trim();
  const send = async (event) => {
    event.preventDefault();
    setState({ share: 0 });
    try {
      const made = await upload("v1/adapters", formOf(files, name, alias), (share) => setState({ share }));
      setState({ made });
      setFiles({});
      onDone();
    } catch (error) {
      setState({ error });
    }
  };
  return html`<form class="panel" onSubmit=${send} aria-label="Upload an adapter">
    <header><h2>Upload an adapter</h2></header>
    <${Drop} label="Drop the two files, or their folder" multiple accept=".safetensors,.json" onFiles=${take}
      hint="${WEIGHTS} and ${CONFIG}, as PEFT writes them." />
    ${(files.weights || files.config) && html`
      <ul class="tags" aria-label="Files">${[files.weights, files.config].filter(Boolean).map((file) => html`
        <li class="tag" key=${file.name}>${file.name} (${bytes(file.size)})</li>`)}</ul>
      <div class="filters">
        <${Field} label="Name" value=${name} onValue=${setName} required hint="A known name gets a new version." />
        <${Field} label="Alias" value=${alias} onValue=${setAlias} placeholder="none" hint="Points to this version afterwards." />
      </div>
      <div class="row"><button class="main" disabled=${!isReady || state.share !== undefined}>Upload</button>
        ${state.share !== undefined && html`<progress max="1" value=${state.share} aria-label="Sent"></progress>
          <span class="hint">${state.share < 1 ? percent(state.share) : "the server checks it"}</span>`}</div>`}
    <${Notice} error=${state.error} />
    ${state.made && html`<${Notice} kind="good"><a href=${linkTo("adapters", [state.made.name])}>${state.made.name}</a>
      ${" "}is there as version ${state.made.version}: ${state.made.method}, ${bytes(state.made.size_bytes)}.<//>`}
  </form>`;
}

/** Returns the two files among those that were dropped, and what is wrong with the others. */
export function sorted(dropped, before) {
  const weights = dropped.find((file) => file.name.endsWith(".safetensors"));
  const config = dropped.find((file) => file.name.endsWith(".json"));
  const taken = { weights: weights ?? before.weights, config: config ?? before.config };
  const other = dropped.find((file) => file !== weights && file !== config && !/\.(safetensors|json)$/.test(file.name));
  if (!weights && !config) return { taken: before, fault: `${other?.name ?? "this"} is neither ${WEIGHTS} nor ${CONFIG}` };
  const missing = taken.weights ? CONFIG : WEIGHTS;
  const isWhole = taken.weights && taken.config;
  return { taken, fault: isWhole || dropped.length < 2 ? null : `${missing} is missing` };
}

function formOf({ weights, config }, name, alias) {
  const form = new FormData();
  form.append("name", name.trim());
  if (alias.trim()) form.append("alias", alias.trim());
  form.append("config", config, CONFIG);
  form.append("file", weights, WEIGHTS);
  return form;
}

// The training file: checked here as it is dropped, then sent, then checked by the server.
import { call, upload } from "../../api.js";
import { Drop } from "../../components/drop.js";
import { Notice } from "../../components/notice.js";
import { bytes, many, percent } from "../../format.js";
import { html, useState } from "../../view.js";
import { checked } from "./check.js";

export function TrainingFile({ file, onFile }) {
  const [state, setState] = useState({});
  const take = async ([dropped]) => {
    if (!dropped) return;
    onFile(null);
    setState({ name: dropped.name, step: "reading" });
    try {
      const found = await checked(dropped);
      if (found?.faults.length) setState({ name: dropped.name, faults: found.faults, by: "It was not sent" });
      else setState(await sent(dropped, (share) => setState({ name: dropped.name, step: "sending", share }), onFile));
    } catch (error) {
      setState({ error });
    }
  };
  return html`<div class="stack">
    <${Drop} label="Drop a training file" accept=".jsonl,.json,.csv,.zip" onFiles=${take}
      hint="JSON lines with messages, with prompt and completion, or with text (and label); CSV with such columns; a zip of pictures in folders by label." />
    <${Notice} error=${state.error} />
    ${state.step && html`<div class="row" role="status"><progress max="1" value=${state.share ?? null} aria-label="Sent"></progress>
      <span class="hint">${state.name}: ${state.step === "reading" ? "being read" : state.share < 1 ? percent(state.share) : "the server checks it"}</span></div>`}
    ${state.faults && html`<${Faults} ...${state} />`}
    ${file && html`<${Notice} kind="good">${file.filename}: ${many(file.overtone.num_examples, "example")}
      (${Object.entries(file.overtone.forms).map(([form, n]) => `${n} ${form}`).join(", ")}), ${bytes(file.bytes)}. The server has checked it.<//>`}
  </div>`;
}

function Faults({ name, faults, by }) {
  return html`<div class="notice bad" role="alert"><div>
    <strong>${name} cannot be trained on.</strong> ${by}. Mend these lines and drop it again:
    <ol class="faults">${faults.map((fault, i) => html`<li key=${i}><b>${fault.line ? `line ${fault.line}` : "file"}</b> ${fault.message}</li>`)}</ol>
  </div></div>`;
}

/** Sends a file; one that the server refuses to train on is taken away again. */
async function sent(dropped, onShare, onFile) {
  const form = new FormData();
  form.append("purpose", "fine-tune");
  form.append("file", dropped, dropped.name);
  const file = await upload("v1/files", form, onShare);
  if (file.status !== "error") {
    onFile(file);
    return {};
  }
  await call(`v1/files/${file.id}`, { method: "DELETE" }).catch(() => {});
  const faults = file.overtone.faults ?? [{ line: 0, message: file.status_details }];
  return { name: dropped.name, faults, by: "The server has checked it, and did not keep it" };
}

// Aliases, moved by compare-and-swap: the server is told which version the reader saw.
import { adapterPath, call } from "../../api.js";
import { Field } from "../../components/field.js";
import { html, useState } from "../../view.js";

export function Aliases({ entry, versions, act }) {
  const own = Object.entries(entry.aliases).filter(([alias]) => alias !== "latest");
  const [alias, setAlias] = useState("");
  const [version, setVersion] = useState(String(entry.version));
  const move = (event) => {
    event.preventDefault();
    const known = entry.aliases[alias];
    act(() => moved(entry.name, alias.trim(), Number(version), known));
  };
  return html`<section class="panel" aria-label="Aliases">
    <header><h2>Aliases</h2></header>
    ${own.length
      ? html`<ul class="tags">${own.map(([name, at]) => html`<li key=${name} class="tag"><code>${entry.name}@${name}</code> → version ${at}
          <button type="button" aria-label="Move ${name}" onClick=${() => setAlias(name)}>move</button></li>`)}</ul>`
      : html`<p class="hint">None: requests name ${entry.name}, which is its latest version, or a version as ${entry.name}@${entry.version}.</p>`}
    <form class="with-button" onSubmit=${move}>
      <${Field} label="Alias" value=${alias} onValue=${setAlias} required placeholder="prod" pattern="[a-z][a-z0-9_\\-]*" title="small letters, digits, - and _" />
      <${Field} label="Version" value=${version} onValue=${setVersion} options=${versions.map((one) => String(one.version))} />
      <button>${entry.aliases[alias] ? "Move" : "Set"}</button>
    </form>
  </section>`;
}

async function moved(name, alias, version, known) {
  const headers = known === undefined ? {} : { "If-Match": `"${known}"` };
  const path = adapterPath(name, "aliases", alias);
  try {
    await call(path, { method: "PUT", json: { version }, headers });
  } catch (error) {
    if (error.status === 412) {
      error.message = `${name}@${alias} was moved by another request after you looked: it is no longer at `
        + `version ${known}, so it was left where it is now. Look at it below, then move it again`;
    }
    throw error;
  }
}

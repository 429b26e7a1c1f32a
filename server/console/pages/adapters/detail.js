// One adapter: its latest version, aliases, versions, where it is in memory, and its layers' pictures.
import { adapterPath, call, get, post } from "../../api.js";
import { Confirm } from "../../components/dialog.js";
import { Copy } from "../../components/copy.js";
import { Notice } from "../../components/notice.js";
import { bytes, count, shortDigest, time } from "../../format.js";
import { useLoad } from "../../loading.js";
import { go, linkTo } from "../../route.js";
import { html, useState } from "../../view.js";
import { Aliases } from "./aliases.js";
import { Layers } from "./layers.js";
import { Residency } from "./residency.js";
import { Maker, Versions } from "./versions.js";

export function Detail({ name }) {
  const { data, error, reload } = useLoad(() => read(name), [name]);
  const [failed, setFailed] = useState(null);
  const [question, setQuestion] = useState(null);
  const act = async (work, isGone = false) => {
    setFailed(null);
    setQuestion(null);
    try {
      await work();
      if (isGone) go("adapters");
      else await reload();
    } catch (fault) {
      setFailed(fault);
      if (fault.status === 412) reload();
    }
  };
  const remove = (version) => setQuestion({
    title: version ? `Delete version ${version} of ${name}?` : `Delete ${name}?`,
    text: version
      ? "Requests that run now finish on it; new ones to this version are refused."
      : "All versions and aliases go. Requests that run now finish; new ones are refused. The file is not kept.",
    yes: () => act(
      () => call(version ? adapterPath(name, "versions", version) : adapterPath(name), { method: "DELETE" }),
      !version || data.versions.length === 1,
    ),
  });
  const back = html`<div><a href=${linkTo("adapters")}>← All adapters</a></div>`;
  if (!data) return html`${back}<${Notice} error=${error} retry=${reload} />`;
  const { entry, versions } = data;
  return html`${back}
    <section class="panel" aria-label="Latest version">
      <header><h2>${entry.name}</h2>
        <a class="button" href=${linkTo("playground", [], { models: `${entry.base.name},${entry.name}` })}>Try it</a>
        <button class="quiet" onClick=${() => act(() => post(adapterPath(name, "rollback")))}
          disabled=${versions.length < 2}>Roll back</button>
        <button class="quiet danger" onClick=${() => remove(null)}>Delete</button></header>
      <${Notice} error=${failed} />
      <${Facts} entry=${entry} />
    </section>
    <div class="two">
      <${Aliases} entry=${entry} versions=${versions} act=${act} />
      <${Residency} name=${name} entry=${entry} act=${act} />
    </div>
    <${Versions} entry=${entry} versions=${versions} onDelete=${remove} />
    <${Layers} key=${entry.version} entry=${entry} versions=${versions} />
    ${question && html`<${Confirm} title=${question.title} text=${question.text} action="Delete" onYes=${question.yes} onNo=${() => setQuestion(null)} />`}`;
}

async function read(name) {
  const [entry, versions] = await Promise.all([get(adapterPath(name)), get(adapterPath(name, "versions"))]);
  return { entry, versions: versions.data };
}

function Facts({ entry }) {
  const metrics = Object.entries(entry.metrics).filter(([, value]) => typeof value === "number");
  const config = Object.entries(entry.method_config).map(([key, value]) => `${key} = ${value}`);
  const facts = [
    ["Latest version", entry.version], ["Method", entry.method], ["Settings", config.join(", ") || "–"],
    ["Numbers of its own", count(entry.num_coefficients)], ["File", bytes(entry.size_bytes)],
    ["Layers", entry.target_modules.length], ["Base", `${entry.base.name}${entry.base.verified ? "" : " (the file does not name it)"}`],
    ["Made by", html`<${Maker} by=${entry.created_by} />`], ["Registered", time(entry.created_at)],
    ["Shared", entry.shared ? "with all tenants" : entry.shared_with.join(", ") || "no"],
    ...metrics.map(([metric, value]) => [metric, value.toPrecision(4)]),
  ];
  return html`<dl class="facts">
    ${facts.map(([term, value]) => html`<div key=${term}><dt>${term}</dt><dd>${value}</dd></div>`)}
    <div><dt>Digest</dt><dd><code title=${entry.digest}>${shortDigest(entry.digest)}</code><${Copy} text=${entry.digest} /></dd></div>
  </dl>`;
}

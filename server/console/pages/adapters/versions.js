// The versions of an adapter, the newest first.
import { bytes, shortDigest, time } from "../../format.js";
import { linkTo } from "../../route.js";
import { html } from "../../view.js";

const HEAD = html`<tr><th>Version</th><th>Names</th><th>Method</th><th class="number">Size</th><th>Digest</th><th>Registered</th><th>Made by</th><th><span class="only-read">Actions</span></th></tr>`;

export function Versions({ entry, versions, onDelete }) {
  return html`<section class="panel" aria-label="Versions">
    <header><h2>Versions</h2></header>
    <table class="table"><thead>${HEAD}</thead>
      <tbody>${[...versions].reverse().map((one) => html`<tr key=${one.version}>
        <td class="name">Version ${one.version}</td>
        <td data-label="Names">${namesOf(entry, one.version)}</td>
        <td data-label="Method">${one.method}</td>
        <td class="number" data-label="Size">${bytes(one.size_bytes)}</td>
        <td class="whole" data-label="Digest"><code>${shortDigest(one.digest)}</code></td>
        <td data-label="Registered">${time(one.created_at)}</td>
        <td data-label="Made by"><${Maker} by=${one.created_by} /></td>
        <td class="acts">
          <a class="button" href=${linkTo("playground", [], { models: `${one.base.name},${one.name}@${one.version}` })} aria-label="Try version ${one.version}">Try</a>
          <button class="quiet danger" aria-label="Delete version ${one.version}" onClick=${() => onDelete(one.version)}>Delete</button>
        </td></tr>`)}</tbody></table>
  </section>`;
}

/** What made a version: an upload, or a training job, which has a page. */
export function Maker({ by }) {
  if (!by.startsWith("ftjob-")) return by || "–";
  return html`<a href=${linkTo("training", [by])} title=${by}>a training job</a>`;
}

function namesOf({ aliases }, version) {
  return Object.keys(aliases).filter((alias) => aliases[alias] === version).join(", ");
}

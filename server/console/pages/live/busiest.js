// The adapters that had requests last, the busiest first.
import { duration, figure } from "../../format.js";
import { linkTo } from "../../route.js";
import { html } from "../../view.js";

export function Busiest({ rows }) {
  return html`<section class="panel" aria-label="By adapter"><header><h2>By adapter</h2></header>
    ${rows.length ? html`<${Table} rows=${rows} />` : html`<div class="empty"><p>No request yet.</p></div>`}</section>`;
}

function Table({ rows }) {
  return html`<table class="table"><thead><tr><th>Adapter</th><th>Mode</th><th>In memory</th><th class="number">Running</th>
      <th class="number">Waiting</th><th class="number">Requests/s</th><th class="number">Tokens/s</th><th class="number">First token, p95</th></tr></thead>
    <tbody>${rows.map((one) => html`<tr key=${one.adapter ?? ""}>
      <td class="name">${one.adapter ? html`<a href=${linkTo("adapters", [one.adapter])}>${one.adapter}</a>` : "the base"}</td>
      <td data-label="Mode">${one.mode ?? "–"}</td>
      <td data-label="In memory">${one.adapter ? one.tiers.join(", ") || "–" : "always"}</td>
      <td class="number" data-label="Running">${one.running}</td>
      <td class="number" data-label="Waiting">${one.waiting}</td>
      <td class="number" data-label="Requests/s">${figure(one.requests)}</td>
      <td class="number" data-label="Tokens/s">${figure(one.tokens)}</td>
      <td class="number" data-label="First token, p95">${duration(one.late)}</td></tr>`)}</tbody></table>`;
}

// All adapters by name: search, filter, page by page; and the place to upload one.
import { get } from "../../api.js";
import { Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { bytes, count, time } from "../../format.js";
import { useLoad } from "../../loading.js";
import { linkTo } from "../../route.js";
import { html, useEffect, useState } from "../../view.js";
import { METHODS } from "../methods.js";
import { Upload } from "./upload.js";

const PAGE = 50;

export function List() {
  const [wanted, setWanted] = useState({ prefix: "", method: "" });
  const { rows, hasMore, error, more, reload } = usePages(wanted);
  const change = (field) => (value) => setWanted({ ...wanted, [field]: value });
  return html`
    <${Upload} onDone=${reload} />
    <section class="panel" aria-label="Adapters">
      <div class="filters">
        <${Field} type="search" label="Search" placeholder="the beginning of a name" value=${wanted.prefix} onValue=${change("prefix")} />
        <${Field} label="Method" value=${wanted.method} onValue=${change("method")}
          options=${[["", "all methods"], ...Object.keys(METHODS).map((name) => [name, name])]} />
      </div>
      <${Notice} error=${error} retry=${reload} />
      ${rows && (rows.length ? html`<${Table} rows=${rows} />` : html`<${Nothing} isFiltered=${wanted.prefix || wanted.method} />`)}
      ${hasMore && html`<div><button onClick=${more}>More</button></div>`}
    </section>`;
}

function Nothing({ isFiltered }) {
  return html`<div class="empty">${isFiltered
    ? html`<p>No adapter's name begins so with this method.</p>`
    : html`<p>No adapters yet.</p><p>Upload one above, or train one under <a href=${linkTo("training")}>Training</a>.</p>`}</div>`;
}

function Table({ rows }) {
  return html`<table class="table">
    <thead><tr><th>Name</th><th class="number">Version</th><th>Method</th><th class="number">Numbers</th>
      <th class="number">Size</th><th>Aliases</th><th>In memory</th><th>Registered</th></tr></thead>
    <tbody>${rows.map((one) => html`<tr key=${one.name}>
      <td class="name"><a href=${linkTo("adapters", [one.name])}>${one.name}</a></td>
      <td class="number" data-label="Version">${one.version}</td>
      <td data-label="Method">${one.method}</td>
      <td class="number" data-label="Numbers">${count(one.num_coefficients)}</td>
      <td class="number" data-label="Size">${bytes(one.size_bytes)}</td>
      <td data-label="Aliases">${aliasesOf(one)}</td>
      <td data-label="In memory">${one.residency.join(", ") || "–"}</td>
      <td data-label="Registered">${time(one.created_at)}</td>
    </tr>`)}</tbody>
  </table>`;
}

function aliasesOf({ aliases }) {
  const own = Object.entries(aliases).filter(([alias]) => alias !== "latest");
  return own.map(([alias, version]) => `${alias} → ${version}`).join(", ") || "–";
}

/** The pages so far of what is wanted; a new search begins anew. */
function usePages({ prefix, method }) {
  const [settled, setSettled] = useState({ prefix, method });
  const [pages, setPages] = useState([]);
  useEffect(() => {
    const timer = setTimeout(() => setSettled({ prefix, method }), 150);
    return () => clearTimeout(timer);
  }, [prefix, method]);
  const first = useLoad(() => read(settled), [settled]);
  useEffect(() => setPages([]), [first.data]);
  const all = first.data ? [first.data, ...pages] : [];
  const last = all.at(-1);
  return {
    rows: first.data && all.flatMap((page) => page.data),
    hasMore: last?.has_more,
    error: first.error,
    reload: first.reload,
    more: async () => setPages([...pages, await read(settled, last.last_id)]),
  };
}

function read({ prefix, method }, after = "") {
  const given = { limit: String(PAGE), prefix: prefix.trim(), method, after };
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  return get(`v1/adapters?${query}`);
}

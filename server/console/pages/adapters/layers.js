// What a version does to each layer: the matrix, its spectrum, and its size beside a LoRA's.
import { adapterPath, get } from "../../api.js";
import { Field } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { Picture } from "../../components/picture.js";
import { bytes, count, figure } from "../../format.js";
import { useLoad } from "../../loading.js";
import { html, useState } from "../../view.js";

const RANK = 8;
const NUMBER_BYTES = 4;
const SPECTRA = { fourier: "Fourier", cosine: "cosine" };

export function Layers({ entry, versions }) {
  const [version, setVersion] = useState(String(entry.version));
  const [target, setTarget] = useState("");
  const listed = useLoad(() => get(adapterPath(entry.name, "versions", version, "layers")), [entry.name, version]);
  const layers = listed.data?.data ?? [];
  const layer = layers.find((one) => one.target === target) ?? layers[0];
  const facts = versions.find((one) => String(one.version) === version) ?? entry;
  return html`<section class="panel" aria-label="Layers">
    <header><h2>What it changes</h2></header>
    <${Notice} error=${listed.error} retry=${listed.reload} />
    ${layer && html`
      <${Sizes} layers=${layers} size=${facts.size_bytes} method=${facts.method} />
      <div class="filters">
        <${Field} label="Version" value=${version} onValue=${setVersion} options=${versions.map((one) => String(one.version))} />
        <${Field} label="Layer" value=${layer.target} onValue=${setTarget} options=${layers.map((one) => one.target)} />
      </div>
      <${Pictures} key=${`${version} ${layer.target}`} entry=${entry} version=${version} layer=${layer} />`}
  </section>`;
}

function Pictures({ entry, version, layer }) {
  const path = adapterPath(entry.name, "versions", version, "layers", layer.target, "picture");
  const { data, error, reload } = useLoad(() => get(path), [path]);
  if (!data) return html`<${Notice} error=${error} retry=${reload} />${!error && html`<p class="hint" role="status">Drawing …</p>`}`;
  const [out, inner] = layer.shape;
  const axes = data.transform === "fourier" ? "frequency zero at the left, in the middle" : "frequency zero at the top left";
  return html`
    <p class="hint">${count(layer.num_coefficients)} numbers make a change of ${count(out)} × ${count(inner)} = ${count(out * inner)};
      root of its squares ${figure(data.norm)}.</p>
    <div class="pictures">
      <${Picture} matrix=${data.delta} label="Change of ${layer.target}"
        caption="|ΔW|: ${out} rows, ${inner} columns; the brightest is ${figure(data.delta.largest)}" />
      <${Picture} matrix=${data.spectrum} label="Spectrum of the change of ${layer.target}"
        caption="Its ${SPECTRA[data.transform]} spectrum, six decades; ${axes}" />
    </div>`;
}

/** The file's size beside that of a LoRA of rank 8 on the same layers, in 32-bit numbers. */
function Sizes({ layers, size, method }) {
  const numbers = layers.reduce((sum, { shape: [out, inner] }) => sum + RANK * (out + inner), 0);
  const bars = [[`This file (${method})`, size], [`A LoRA, r = ${RANK}, same layers`, numbers * NUMBER_BYTES]];
  const most = Math.max(...bars.map(([, value]) => value));
  return html`<div class="sizes">${bars.map(([label, value]) => html`
    <div class="score" key=${label}><span>${label}</span>
      <span class="bar"><span style=${{ width: `${(100 * value) / most}%` }}></span></span><span class="number">${bytes(value)}</span></div>`)}
  </div>`;
}

// A matrix of numbers from 0 to 255, drawn cell by cell; the browser scales it up without blurring.
import { html, useEffect, useRef } from "../view.js";

export function Picture({ matrix, label, caption }) {
  const own = useRef();
  const { rows } = matrix;
  useEffect(() => {
    const canvas = own.current;
    canvas.width = rows[0].length;
    canvas.height = rows.length;
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    rows.flat().forEach((value, i) => image.data.set([...COLOURS[value], 255], 4 * i));
    context.putImageData(image, 0, 0);
  }, [matrix]);
  return html`<figure class="picture">
    <canvas ref=${own} role="img" aria-label=${label}></canvas>
    <figcaption>${caption}</figcaption>
  </figure>`;
}

// From dark to bright through even steps of lightness, after matplotlib's `viridis`.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const COLOURS = Array.from({ length: 256 }, (_, value) => {
  const place = (value / 255) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[below].map((from, i) => Math.round(from + (place - below) * (STOPS[below + 1][i] - from)));
});

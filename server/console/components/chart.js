// A chart of lines over one axis, drawn by uPlot, which is loaded when the first one is shown.
import { html, useEffect, useRef, useState } from "../view.js";

const SCRIPT = "console/vendor/uPlot.iife.min.js";
const STYLE = "console/vendor/uPlot.min.css";
let loading = null;

/** Returns uPlot, which is no module: it makes a name of the page. */
function plotter() {
  loading ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: STYLE });
    const script = Object.assign(document.createElement("script"), { src: SCRIPT });
    script.onload = () => resolve(globalThis.uPlot);
    script.onerror = () => reject(new Error("the chart's program could not be loaded"));
    document.head.append(style, script);
  });
  return loading;
}

/**
 * `lines`: [{ name, colour, xs, ys, dots }], colour a variable of the style sheet.
 * `told`: what the chart shows, for readers who do not see it. `ofTime`: counts over seconds since 1970.
 */
export function Chart({ lines, told, x = "step", y = "", height = 240, ofTime = false }) {
  const own = useRef();
  const plot = useRef(null);
  const [isThere, setIsThere] = useState(false);
  const dark = useDark();
  const form = lines.map((line) => `${line.name}/${line.colour}/${line.dots}`).join(" ");
  useEffect(() => { plotter().then(() => setIsThere(true), () => {}); }, []);
  useEffect(() => {
    if (!isThere) return undefined;
    const place = own.current;
    const options = optionsOf(lines, { x, y, height, ofTime, width: place.clientWidth });
    const made = new globalThis.uPlot(options, dataOf(lines), place);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: place.clientWidth, height }));
    watch.observe(place);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [isThere, dark, form, height]);
  useEffect(() => plot.current?.setData(dataOf(lines)), [lines]);
  return html`<div class="chart">
    <div ref=${own} role="img" aria-label=${told} style=${{ minHeight: `${height}px` }}></div>
    <ul class="legend">${lines.map((line) => html`<li key=${line.name}>
      <span class=${line.dots ? "dot" : "dash"} style=${{ background: `var(${line.colour})` }}></span>${line.name}</li>`)}</ul>
  </div>`;
}

function useDark() {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const follow = () => setDark(query.matches);
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  return dark;
}

/** All lines over one axis: uPlot wants a value, or null, for each of its places. */
function dataOf(lines) {
  const places = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
  const columns = lines.map(({ xs, ys }) => {
    const known = new Map(xs.map((place, i) => [place, ys[i]]));
    return places.map((place) => known.get(place) ?? null);
  });
  return [places, ...columns];
}

const named = (label) => (label ? { label, labelSize: 20 } : {});
const fromZero = (_, low, high) => [0, Math.max(1, 1.1 * high)];
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

function optionsOf(lines, { x, y, height, width, ofTime }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return {
    width, height, legend: { show: false }, cursor: { drag: { x: false, y: false } },
    scales: { x: { time: false }, ...(ofTime && { y: { range: fromZero } }) },
    axes: [
      { ...axis, ...named(x), ...(ofTime && { space: 90, values: (_, all) => all.map(clock) }) },
      { ...axis, ...named(y), size: 54 },
    ],
    series: [{}, ...lines.map((line) => ({
      stroke: colour(line.colour), width: 1.6, spanGaps: true,
      ...(line.dots ? { points: { show: true, size: 7, fill: colour(line.colour) }, paths: () => null } : { points: { show: false } }),
    }))],
  };
}

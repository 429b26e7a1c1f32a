// Numbers, sizes and times as people read them.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => number.format(value);

/** 1536 -> "1.5 KiB" */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const scaled = value / 1024 ** power;
  return `${power && scaled < 100 ? scaled.toFixed(1) : Math.round(scaled)} ${units[power]}`;
}

/** Seconds -> "340 ms", "2.1 s", "3 min", "1.5 h" */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Seconds since 1970 -> the reader's own way to write a time. */
export const time = (seconds) =>
  new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** A number with so many digits as it has meaning: 0.0123, 1.23, 123. */
export function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0 || Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3) {
    return value === 0 ? "0" : value.toExponential(2);
  }
  return String(Number(value.toPrecision(digits)));
}

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** "sha256:0123…" -> its first twelve digits */
export const shortDigest = (digest) => digest.replace("sha256:", "").slice(0, 12);

/** 1, "adapter" -> "1 adapter"; 2 -> "2 adapters" */
export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

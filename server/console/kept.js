// What a reader has written and was answered, kept in the browser's tab: it is there again after
// another page, and after this one is loaded anew. It goes with the key.
import { useEffect, useState } from "./view.js";

const PREFIX = "overtone.kept.";

export function read(name) {
  const text = sessionStorage.getItem(PREFIX + name);
  return text === null ? null : JSON.parse(text);
}

export function keep(name, value) {
  try {
    sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch { // the tab's room is used up: what was kept before is not what is shown now
    sessionStorage.removeItem(PREFIX + name);
  }
}

/** useState with a value that is kept under a name. */
export function useKept(name, initial) {
  const [value, setValue] = useState(() => read(name) ?? initial);
  useEffect(() => keep(name, value), [value]);
  return [value, setValue];
}

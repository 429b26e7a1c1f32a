// Chooses models by name: a field that lists the adapters that begin so, for pointer and keyboard.
import { get } from "../api.js";
import { html, useEffect, useId, useState } from "../view.js";

const SHOWN = 8;

export function ModelPicker({ label, chosen, most, onChosen }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState([]);
  const [at, setAt] = useState(-1);
  const [isOpen, setIsOpen] = useState(false);
  const own = useId();
  const isFull = chosen.length >= most;
  useEffect(() => {
    const timer = setTimeout(() => named(text).then(setFound, () => setFound([])), 120);
    return () => clearTimeout(timer);
  }, [text, isOpen]);
  const listed = found.filter((name) => !chosen.includes(name)).slice(0, SHOWN);
  const take = (name) => {
    if (name && !chosen.includes(name) && !isFull) onChosen([...chosen, name]);
    setText("");
    setAt(-1);
  };
  const press = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      setIsOpen(true);
      setAt((before) => (listed.length ? (before + step + listed.length) % listed.length : -1));
    } else if (event.key === "Enter") {
      take(listed[at] ?? text.trim());
    } else if (event.key === "Escape") {
      setIsOpen(false);
    } else return;
    event.preventDefault();
  };
  const isShown = isOpen && listed.length > 0 && !isFull;
  return html`<div class="picker">
    <label for=${own}>${label}</label>
    <input id=${own} role="combobox" autocomplete="off" aria-expanded=${isShown} aria-controls="${own}-list"
      aria-activedescendant=${isShown && at >= 0 ? `${own}-${at}` : null} value=${text} disabled=${isFull}
      placeholder=${isFull ? "that is all that fit" : "NAME, NAME@3, NAME@prod"}
      onInput=${(e) => { setText(e.target.value); setIsOpen(true); setAt(-1); }}
      onFocus=${() => setIsOpen(true)} onBlur=${() => setTimeout(() => setIsOpen(false), 150)} onKeyDown=${press} />
    <ul id="${own}-list" role="listbox" aria-label="Adapters" hidden=${!isShown}>
      ${listed.map((name, i) => html`
        <li key=${name} id="${own}-${i}" role="option" aria-selected=${i === at}
          onMouseDown=${(e) => { e.preventDefault(); take(name); }}>${name}</li>`)}
    </ul>
  </div>`;
}

async function named(text) {
  const prefix = text.split("@")[0].trim();
  const query = new URLSearchParams({ limit: String(SHOWN + 6), ...(prefix && { prefix }) });
  return (await get(`v1/adapters?${query}`)).data.map((one) => one.name);
}

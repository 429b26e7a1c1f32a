// A place for files: they are dropped there, or chosen.
import { html, names, useId, useState } from "../view.js";

export function Drop({ label, hint, accept = null, multiple = false, onFiles }) {
  const [isOver, setIsOver] = useState(false);
  const own = useId();
  const over = (event) => {
    event.preventDefault();
    setIsOver(true);
  };
  const dropped = async (event) => {
    event.preventDefault();
    setIsOver(false);
    onFiles(await filesOf(event.dataTransfer));
  };
  const chosen = (event) => {
    onFiles([...event.target.files]);
    event.target.value = ""; // the same file may be chosen again once it is changed
  };
  return html`<div class=${names("drop", isOver && "over")}
      onDragOver=${over} onDragLeave=${() => setIsOver(false)} onDrop=${dropped}>
    <label for=${own}>${label}</label>
    <input id=${own} type="file" accept=${accept} multiple=${multiple} onChange=${chosen} aria-describedby="${own}-hint" />
    <small id="${own}-hint" class="hint">${hint}</small>
  </div>`;
}

/** Returns what was dropped; of a folder the files that lie in it. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folder = entries.find((entry) => entry.isDirectory);
  if (!folder) return [...transfer.files];
  const reader = folder.createReader();
  const inside = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const files = inside.filter((entry) => entry.isFile);
  return Promise.all(files.map((entry) => new Promise((resolve, reject) => entry.file(resolve, reject))));
}

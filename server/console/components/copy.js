// A text that can be copied.
import { html, useState } from "../view.js";

export function Copy({ text, label = "Copy" }) {
  const [told, setTold] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setTold("Copied");
    } catch { // only pages of https and of this machine may
      setTold("Select the text and copy it");
    }
    setTimeout(() => setTold(""), 2000);
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${told || label}</button>
    <span class="only-read" role="status">${told}</span>`;
}

// A dialog of the browser's own: it keeps the focus inside, and Escape closes it.
import { html, useEffect, useId, useRef } from "../view.js";

export function Dialog({ title, onClose, children }) {
  const own = useRef();
  const heading = useId();
  useEffect(() => {
    own.current.showModal();
    return () => own.current?.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${own} aria-labelledby=${heading} onCancel=${cancel}>
    <h2 id=${heading}>${title}</h2>
    ${children}
  </dialog>`;
}

/** Asks before what cannot be undone. */
export function Confirm({ title, text, action, onYes, onNo }) {
  return html`<${Dialog} title=${title} onClose=${onNo}>
    <p>${text}</p>
    <div class="row end">
      <button onClick=${onNo}>Keep it</button>
      <button class="danger" onClick=${onYes}>${action}</button>
    </div>
  <//>`;
}

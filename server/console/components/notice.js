// A message: an error with what the server says, a warning, or what is being waited for.
import { html } from "../view.js";

const HEADS = {
  0: "The server does not answer",
  403: "Not allowed",
  412: "Changed meanwhile",
  429: "Too much at once",
  503: "Not ready",
  507: "No room",
};

/** Shows `error` (an ApiError or any other) or its children; nothing for neither. */
export function Notice({ error = null, kind = "bad", retry = null, children = null }) {
  if (!error && !children) return null;
  return html`<div class="notice ${kind}" role=${kind === "bad" ? "alert" : "status"}>
    <div>
      ${error && html`<strong>${HEADS[error.status] ?? "That did not work"}.</strong> ${error.message}
        ${error.param && html` <code>${error.param}</code>`}
        ${error.requestId && html`<small> (request ${error.requestId})</small>`}`}
      ${children}
    </div>
    ${retry && html`<button onClick=${retry}>Try again</button>`}
  </div>`;
}

// Adapters: the list, or one of them by its name.
import { html } from "../view.js";
import { Detail } from "./adapters/detail.js";
import { List } from "./adapters/list.js";

export function Page({ route }) {
  const [name] = route.parts;
  return name ? html`<${Detail} key=${name} name=${name} />` : html`<${List} />`;
}

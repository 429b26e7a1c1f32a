// The playground: what fits the base. One that generates answers side by side; others label or embed.
import { html } from "../view.js";
import { Encoding } from "./playground/encoding.js";
import { Generation } from "./playground/generation.js";

export function Page({ route, base }) {
  const given = route.query.get("models");
  const models = given ? given.split(",") : [base.id];
  const kind = base.overtone.kind;
  const View = kind === "causal LM" ? Generation : Encoding;
  return html`<${View} key=${given ?? ""} base=${base} kind=${kind} models=${models} />`;
}

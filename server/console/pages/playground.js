// The playground: what fits the base. One that generates answers side by side; others label or embed.
import { get } from "../api.js";
import { Notice } from "../components/notice.js";
import { useLoad } from "../loading.js";
import { html } from "../view.js";
import { Encoding } from "./playground/encoding.js";
import { Generation } from "./playground/generation.js";

//: Adapters that are asked beside the base where the address names no model.
const FIRST = 2;

export function Page({ route, base }) {
  const given = route.query.get("models");
  const { data, error, reload } = useLoad(async () => ({ given, models: await chosen(given, base.id) }), [given]);
  if (!data || data.given !== given) return html`<${Notice} error=${error} retry=${reload} />`;
  const kind = base.overtone.kind;
  const View = kind === "causal LM" ? Generation : Encoding;
  const place = given ?? "";
  return html`<${View} key=${place} base=${base} kind=${kind} models=${data.models} place=${place} />`;
}

async function chosen(given, base) {
  if (given) return given.split(",");
  const adapters = await get(`v1/adapters?limit=${FIRST}`);
  return [base, ...adapters.data.map((one) => one.name)];
}

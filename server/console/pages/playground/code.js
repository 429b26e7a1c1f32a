// The requests that the page sends, as a program would send them.
import { hasKey } from "../../api.js";
import { Copy } from "../../components/copy.js";
import { Choice, Field } from "../../components/field.js";
import { html, useState } from "../../view.js";
import { plain } from "./comparing.js";

const FORMS = { curl: asCurl, Python: asPython };

/** Models with different histories have a request each, of which one is shown. */
export function Code({ requests }) {
  const [form, setForm] = useState("curl");
  const [chosen, setChosen] = useState("");
  const asked = requests.map((one) => one.models.join(", "));
  const which = Math.max(0, asked.indexOf(chosen));
  const text = FORMS[form](requests[which]);
  return html`<details class="panel">
    <summary>The same as code</summary>
    <div class="row">
      <${Choice} label="Language" value=${form} onValue=${setForm} options=${[["curl", "curl"], ["Python", "Python"]]} />
      <${Copy} text=${text} label="Copy as ${form}" />
    </div>
    ${requests.length > 1 && html`<${Field} label="Request to" value=${asked[which]} onValue=${setChosen} options=${asked}
      hint="They have different histories by now, and a request each." />`}
    <pre tabindex="0" aria-label="Request as ${form}">${text}</pre>
  </details>`;
}

const server = () => new URL(".", location.href.split("#")[0]).href.replace(/\/$/, "");

export function asCurl(given) {
  const [path, body] = plain(given);
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const lines = [
    `curl ${server()}/${path}`,
    "  -H 'Content-Type: application/json'",
    ...(hasKey() ? ['  -H "Authorization: Bearer $OVERTONE_API_KEY"'] : []),
    `  -d '${quoted}'`,
  ];
  return lines.join(" \\\n");
}

export function asPython({ models, messages, prompt, ...params }) {
  const more = Object.entries(params).map(([name, value]) => `, ${name}=${literal(value)}`).join("");
  const what = messages ? literal(messages) : literal(prompt);
  const key = hasKey() ? ', api_key=os.environ["OVERTONE_API_KEY"]' : "";
  const [model] = models;
  const asked = models.length > 1
    ? [
      `compared = client.compare(${literal(models)}, ${messages ? "messages=" : ""}${what}${more})`,
      "for one in compared.answers:", "    print(one.model, one.error or one.text, sep=\": \")",
    ]
    : [
      `answer = client.${messages ? "chat" : "complete"}(${literal(model)}, ${what}${more})`,
      "print(answer.text)",
    ];
  return [
    ...(key ? ["import os", ""] : []),
    "from overtone_client import Client", "",
    `with Client(${literal(server())}${key}) as client:`, ...asked.map((line) => `    ${line}`),
  ].join("\n");
}

// Texts, numbers, lists and objects of texts are written alike in JSON and Python.
const literal = (value) => JSON.stringify(value);

// Node's own fetch.
import { readFile } from "node:fs/promises";

const [url, folder] = process.argv.slice(2);

async function ask(path, body, headers = {}) {
  const answer = await fetch(url + path, { method: "POST", body, headers });
  return [answer.status, await answer.text()];
}

async function post(path, name) {
  const body = await readFile(`${folder}/${name}.json`, "utf8");
  return ask(path, body, { "Content-Type": "application/json" });
}

async function stream() {
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    body: await readFile(`${folder}/stream.json`, "utf8"),
    headers: { "Content-Type": "application/json" },
  });
  let text = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) text += part;
  return [answer.status, text];
}

const form = new FormData();
form.set("purpose", "fine-tune");
form.set("file", new Blob([await readFile(`${folder}/training.jsonl`)]), "training.jsonl");

const raw = {
  completion: await post("/v1/completions", "completion"),
  chat: await post("/v1/chat/completions", "chat"),
  stream: await stream(),
  error: await post("/v1/completions", "error"),
  long: await post("/v1/completions", "long"),
  upload: await ask("/v1/files", form),
};
console.log(JSON.stringify({ client: `fetch of Node ${process.version}`, raw }));

// OpenAI's Node library: completions, chats, streams, tools, structured output, files, errors.
import assert from "node:assert";
import { createReadStream, readFileSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { VERSION } from "openai/version";
import { z } from "zod";

const [url, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const body = (name) => JSON.parse(readFileSync(join(folder, `${name}.json`)));

async function streamed() {
  let text = "", reason = null;
  for await (const chunk of await client.chat.completions.create(body("stream"))) {
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? "";
      reason = choice.finish_reason ?? reason;
    }
  }
  return { text, finish_reason: reason };
}

function called(message) {
  assert.equal(message.tool_calls.length, 1);
  const { name, arguments: given } = message.tool_calls[0].function;
  return { name, arguments: JSON.parse(given) };
}

async function structured() {
  const Animal = z.object({ name: z.enum(["cat", "dog"]), legs: z.literal([2, 4]) });
  const format = zodResponseFormat(Animal, "animal");
  const answer = await client.chat.completions.parse({ ...body("structured"), response_format: format });
  return answer.choices[0].message.parsed;
}

async function refused(name) {
  try {
    await client.completions.create(body(name));
  } catch (error) {
    return { status: error.status, code: error.code };
  }
  throw new Error("nothing was refused");
}

const sent = await client.files.create({
  file: createReadStream(join(folder, "training.jsonl")),
  purpose: "fine-tune",
});
const answers = {
  completion: (await client.completions.create(body("completion"))).choices[0].text,
  chat: (await client.chat.completions.create(body("chat"))).choices[0].message.content,
  stream: await streamed(),
  error: await refused("error"),
  long: await refused("long"),
  upload: { filename: sent.filename, bytes: sent.bytes },
  tools: called((await client.chat.completions.create(body("tools"))).choices[0].message),
  tool_stream: called(await client.chat.completions.stream(body("tools")).finalMessage()),
  structured: await structured(),
};
console.log(JSON.stringify({ client: `openai (npm) ${VERSION}, Node ${process.version}`, answers }));

// What can be seen of a training file before it is sent: its first faults, by their lines.

const MOST_FAULTS = 10;
//: A larger file is read so far; the server reads all of it.
const MOST_BYTES = 64 * 2 ** 20;
const EXPECTED = "`messages`, `prompt` and `completion`, `text`, or `text` and `label`";

/** Returns { count, faults: [{ line, message }] } of a file of JSON lines; null for other kinds. */
export async function checked(file) {
  const first = (await file.slice(0, 64).text()).trimStart();
  if (!first.startsWith("{") && !/\.jsonl$/i.test(file.name)) return null;
  const faults = [];
  let count = 0;
  let line = 0;
  for await (const text of linesOf(file)) {
    line += 1;
    if (!text.trim()) continue;
    const message = faultOf(text);
    if (message) faults.push({ line, message });
    else count += 1;
    if (faults.length === MOST_FAULTS) break;
  }
  if (!count && !faults.length) faults.push({ line: 0, message: "the file holds no example" });
  return { count, faults };
}

/** Returns what is wrong with a line; empty if nothing is that can be seen here. */
export function faultOf(text) {
  let row;
  try {
    row = JSON.parse(text);
  } catch (error) {
    return `is not JSON: ${error.message}`;
  }
  if (row === null || typeof row !== "object" || Array.isArray(row)) return "is no JSON object";
  if ("messages" in row) return Array.isArray(row.messages) && row.messages.length ? "" : "has no list of `messages`";
  if ("completion" in row || "prompt" in row) {
    return typeof row.completion === "string" && row.completion ? "" : "has no text as `completion`";
  }
  if (!("text" in row)) return `has the fields ${Object.keys(row).slice(0, 5).join(", ") || "none"}; expected ${EXPECTED}`;
  return typeof row.text === "string" && row.text ? "" : "has no text as `text`";
}

async function* linesOf(file) {
  const stream = file.slice(0, MOST_BYTES).stream().pipeThrough(new TextDecoderStream());
  const reader = stream.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
  if (rest && file.size <= MOST_BYTES) yield rest;
}

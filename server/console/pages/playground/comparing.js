// Several models' answers to one message, as they are streamed, each with its times.
import { events } from "../../api.js";

/**
 * Asks, and calls `onAnswers` with all answers whenever there is more of one, once a frame at most.
 * `requests`: [{ models, messages or prompt, ... }], one for all models that are asked the same;
 * several models are one comparison. The answers are in the order of `models`.
 * An answer: { model, text, by, firstS, lastS, tokens, reason, error }, times in seconds.
 */
export async function answered(models, requests, signal, onAnswers) {
  const answers = models.map(blank);
  const begun = performance.now();
  let waiting = 0;
  const show = () => { waiting = 0; onAnswers(answers.map((one) => ({ ...one }))); };
  const told = (answer, chunk) => {
    take(answer, chunk, (performance.now() - begun) / 1000);
    waiting ||= requestAnimationFrame(show);
  };
  show();
  try {
    await Promise.all(requests.map(async (request) => {
      const own = request.models.map((model) => answers[models.indexOf(model)]);
      try {
        await followed(request, signal, (index, chunk) => told(own[index], chunk));
      } catch (error) {
        if (error.name === "AbortError" || requests.length === 1) throw error;
        own.forEach((one) => { one.error ??= { message: error.message, code: error.code, param: error.param }; });
      }
      own.forEach((one) => { one.isOver = true; });
    }));
  } finally {
    cancelAnimationFrame(waiting);
    answers.forEach((one) => { one.isOver = true; });
    show();
  }
}

/** Reads one request's stream; `onChunk` is told the model's number and a chunk of its answer. */
async function followed(request, signal, onChunk) {
  const [path, body] = plain(request);
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const isOne = request.models.length === 1;
  for await (const event of events(path, { method: "POST", json: asked, signal })) {
    if (isOne) onChunk(0, event);
    else if (event.error) throw Object.assign(new Error(event.error.message), event.error);
    else onChunk(event.index, event.chunk);
  }
}

/** Returns route and body: a request to one model is one of OpenAI's. */
export function plain({ models, ...body }) {
  if (models.length > 1) return ["v1/compare", { models, ...body }];
  return [body.messages ? "v1/chat/completions" : "v1/completions", { model: models[0], ...body }];
}

const blank = (model) => ({
  model, text: "", by: null, firstS: null, lastS: null, tokens: null, pieces: 0, reason: null, error: null, isOver: false,
});

function take(answer, chunk, now) {
  if (chunk.error) {
    answer.error = chunk.error;
    return;
  }
  answer.by = chunk.overtone ?? answer.by;
  const choice = chunk.choices[0];
  if (choice) {
    const text = choice.text ?? choice.delta?.content ?? "";
    if (text) {
      answer.firstS ??= now;
      answer.lastS = now;
      answer.pieces += 1;
      answer.text += text;
    }
    answer.reason = choice.finish_reason ?? answer.reason;
  }
  if (chunk.usage) answer.tokens = chunk.usage.completion_tokens;
}

/** Returns the tokens per second after the first one, or null where there were too few. */
export function rate({ tokens, firstS, lastS }) {
  return tokens > 1 && lastS > firstS ? (tokens - 1) / (lastS - firstS) : null;
}

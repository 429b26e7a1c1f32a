// A comparison's stream, made into one answer for each model with its times.
import { events } from "../../api.js";

/**
 * Asks, and calls `onAnswers` with all answers whenever there is more of one, once a frame at most.
 * An answer: { model, text, by, firstS, lastS, tokens, reason, error }, times in seconds.
 */
export async function compared(body, signal, onAnswers) {
  const answers = body.models.map(blank);
  const begun = performance.now();
  let waiting = 0;
  const show = () => { waiting = 0; onAnswers(answers.map((one) => ({ ...one }))); };
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  show();
  try {
    for await (const event of events("v1/compare", { method: "POST", json: asked, signal })) {
      if (event.error) throw Object.assign(new Error(event.error.message), event.error);
      take(answers[event.index], event.chunk, (performance.now() - begun) / 1000);
      waiting ||= requestAnimationFrame(show);
    }
  } finally {
    cancelAnimationFrame(waiting);
    answers.forEach((one) => { one.isOver = true; });
    show();
  }
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

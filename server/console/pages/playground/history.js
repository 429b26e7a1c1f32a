// A chat with several models: what each was told and has answered. Pure.

/**
 * Returns what one model is sent for its next answer. `turns`: [{ said, answers }], in their order. A
 * turn that a model was not asked in, or gave no text in, is not part of its history.
 */
export function messagesOf(model, turns, said, system) {
  const before = turns.flatMap((turn) => {
    const text = turn.answers.find((one) => one.model === model)?.text;
    return text ? [{ role: "user", content: turn.said }, { role: "assistant", content: text }] : [];
  });
  const rule = system ? [{ role: "system", content: system }] : [];
  return [...rule, ...before, { role: "user", content: said }];
}

/** Returns a request for each group of models with the same history: { models, messages, ...params }. */
export function chatRequests(models, turns, said, system, params) {
  const groups = new Map();
  for (const model of models) {
    const messages = messagesOf(model, turns, said, system);
    const key = JSON.stringify(messages);
    if (!groups.has(key)) groups.set(key, { models: [], messages, ...params });
    groups.get(key).models.push(model);
  }
  return [...groups.values()];
}

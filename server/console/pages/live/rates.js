// From two looks at the server's activity to rates: as `overtone top` shows them.

/** Returns { requests, tokens, prompt, median, late } between two looks' counts, times in seconds. */
export function rates(before, now, seconds, bounds) {
  const grown = (field) => Math.max(0, now[field] - (before?.[field] ?? 0)) / seconds;
  const firsts = now.first_tokens.map((count, i) => Math.max(0, count - (before?.first_tokens[i] ?? 0)));
  return {
    requests: grown("requests"),
    tokens: grown("generated_tokens"),
    prompt: grown("prompt_tokens"),
    median: quantile(firsts, bounds, 0.5),
    late: quantile(firsts, bounds, 0.95),
  };
}

/** Returns the time within which so large a share of first tokens came; null if there was none. */
export function quantile(counts, bounds, share) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let left = share * total;
  for (let i = 0; i < counts.length && total > 0; i += 1) {
    if (counts[i] >= left) {
      const low = i ? bounds[i - 1] : 0;
      return low + ((bounds[i] ?? low) - low) * (left / counts[i]);
    }
    left -= counts[i];
  }
  return null;
}

/** Returns the adapters between two looks, the busiest first. */
export function busiest(before, now, seconds) {
  const known = new Map(before.data.map((one) => [one.adapter, one]));
  const rows = now.data.map((one) => ({ ...one, ...rates(known.get(one.adapter), one, seconds, now.first_token_bounds_s) }));
  return rows.sort((a, b) => b.tokens - a.tokens || b.requests - a.requests || b.running - a.running);
}

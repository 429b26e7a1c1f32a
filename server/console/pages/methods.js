// The methods in words; `preset` is what a job gets that says nothing else (a test holds it to the trainer's).
export const METHODS = {
  fourierft: { preset: { n_frequency: 1000 }, words: "A few coefficients of a Fourier series for each layer, at positions from a seed. The usual choice: a small file." },
  waveletft: { preset: { n_frequency: 1000 }, words: "Coefficients of wavelets at positions from a seed. Each changes a small area of the matrix." },
  loca: { preset: { n_frequency: 1000 }, words: "Coefficients of cosines whose positions are learned, too. Its file holds them." },
  frod: { preset: { sparse_rate: 0.01 }, words: "A sparse update in directions of the base's own weights." },
  clora: { preset: {}, words: "Circulant blocks, multiplied by Fourier transforms." },
  lora: { preset: { r: 8, lora_alpha: 16 }, words: "Two narrow matrices for each layer: the usual adapter; its size grows with r and the width." },
  dora: { preset: { r: 8, lora_alpha: 16 }, words: "A LoRA that learns the length of each row apart from its direction." },
  vera: { preset: {}, words: "Random matrices that all layers share, and two vectors for each layer." },
  tinylora: { preset: {}, words: "A few numbers in directions of the base's own weights." },
  c3a: { preset: { block_size: 64 }, words: "Blocks of circular convolutions." },
  shira: { preset: { r: 1 }, words: "Single entries of the matrix, at positions from a seed." },
};

/** Returns a preset as text. */
export function presetOf(name) {
  const fields = Object.entries(METHODS[name]?.preset ?? {});
  return fields.map(([field, value]) => `${field} = ${value}`).join(", ") || "the method's own values";
}

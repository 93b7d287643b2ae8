// Numbers of the run and of single images as text.

/** A latent vector with two decimals: "0.12, -3.40". */
function formatPair(values) {
  return values.map((value) => value.toFixed(2)).join(", ");
}

/** A weight as a factor in a formula; empty if it is 1. */
function weightPrefix(weight) {
  return weight === 1 ? "" : `${weight} \u00d7 `;
}

/** The MMD is far below 1, so it needs more decimals than the KLD. */
function formatDivergence(value) {
  return value.toFixed(content.stochastic ? 2 : 4);
}

/** A number of nats, with a true minus sign. */
function formatNats(value) {
  return value.toFixed(2).replace("-", "\u2212");
}

/** The title of a run's pictures: dataset, the epoch as it is called, and the losses on the test set. */
function headline(epoch, name) {
  const [bce, divergence, total] = content.losses[epoch - 1].map(([, test]) => test);
  // --resume may have changed the weight since.
  const weight = divergence ? Number(((total - bce) / divergence).toPrecision(6)) : content.divergenceWeight;
  const sum = `BCE ${bce.toFixed(2)} + ${weightPrefix(weight)}${content.divergence} ` +
    `${formatDivergence(divergence)} = ${total.toFixed(2)}`;
  return `${content.dataset}, ${name}: ${sum} ${content.stochastic ? "nats " : ""}per test image`;
}

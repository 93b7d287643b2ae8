// Numbers of the run and of single images as text.

/** A latent vector with two decimals: "0.12, -3.40". */
function formatPair(values) {
  return values.map((value) => value.toFixed(2)).join(", ");
}

/** The weight of the divergence as a factor in a formula; empty if it is 1. */
function weightPrefix() {
  return content.divergenceWeight === 1 ? "" : `${content.divergenceWeight} \u00d7 `;
}

/** The MMD is far below 1, so it needs more decimals than the KLD. */
function formatDivergence(value) {
  return value.toFixed(content.stochastic ? 2 : 4);
}

/** The terms of an image's loss at z = mu, as rows of [name, value]. */
function listLossTerms(x, posterior) {
  const bce = model.bce(x, posterior.mu);
  const rows = [["BCE at \u03bc", bce]];
  if (content.stochastic) {
    const kld = model.kld(posterior);
    rows.push(["KLD", kld]);
    rows.push([`BCE at \u03bc + ${weightPrefix()}KLD`, bce + content.divergenceWeight * kld]);
  }
  return rows.map(([name, value]) => [name, `${value.toFixed(2)} nats`]);
}

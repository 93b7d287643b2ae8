// The network with its values for the image x, from x to its reconstruction, beside the lines of model.py that compute
// them.

const UNIT_SIDE = 4; // of a hidden unit's square, bitmap pixels

/** What model.py computes it with; a test holds these lines to the file. */
const CODE = {
  encode: "return self.encoder(F.dropout(x, self.input_dropout, self.training)).float().chunk(2, dim=-1)",
  reparameterize: "return mu + torch.exp(0.5 * logvar) * eps",
  decode: "return self.decoder(z)",
  bce: 'return (softplus(logits.to(x.dtype)) - x * logits).sum(-1)',
  kld: "return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)",
};

/** A hidden layer as a picture: a square for each unit, darker where it is larger. */
function paintUnits(values) {
  const columns = Math.ceil(Math.sqrt(2 * values.length));
  const rows = Math.ceil(values.length / columns);
  const canvas = makeCanvas(columns * UNIT_SIDE, rows * UNIT_SIDE);
  const context = canvas.getContext("2d");
  const largest = values.reduce((most, value) => Math.max(most, value), 0) || 1;
  context.fillStyle = state.theme.accent;
  values.forEach((value, i) => {
    context.globalAlpha = value / largest;
    const [column, row] = [i % columns, Math.floor(i / columns)];
    context.fillRect(column * UNIT_SIDE, row * UNIT_SIDE, UNIT_SIDE - 1, UNIT_SIDE - 1);
  });
  const active = values.filter((value) => value > 0).length;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${values.length} hidden units, ${active} of them active`);
  canvas.className = "units";
  return canvas;
}

function paintImage(pixels, label) {
  const canvas = makeCanvas(28, 28);
  showImage(canvas, pixels);
  canvas.className = "digit tiny";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

/** A row of the list: a name, what stands for the values, and the line of code that computes them. */
function layerRow(name, value, code) {
  const item = document.createElement("li");
  const title = document.createElement("b");
  title.textContent = name;
  item.append(title, value);
  if (code) {
    const line = document.createElement("code");
    line.textContent = code;
    item.append(line);
  }
  return item;
}

function showLayers() {
  const { subject, epsilon, terms } = state;
  if (!$("network").open || subject === null) return;
  const { x, q } = subject;
  const z = content.stochastic ? reparameterize(q, epsilon) : q.mu;
  const encoded = model.encoderLayers(x);
  const decoded = model.decoderLayers(z);
  const hidden = (layers) =>
    layers.slice(0, -1).map((values) => layerRow(`${values.length} units`, paintUnits(values)));
  const numbers = (text) => document.createTextNode(text);
  const logvar = q.sigma.map((s) => 2 * Math.log(s));
  const rows = [
    layerRow("x, 784 pixels", paintImage(x, "x")),
    ...hidden(encoded),
    layerRow(content.stochastic ? "\u03bc and log \u03c3\u00b2" : "\u03bc",
      numbers(content.stochastic ? `${formatPair(q.mu)} and ${formatPair(logvar)}` : formatPair(q.mu)), CODE.encode),
  ];
  if (content.stochastic) {
    rows.push(layerRow("z = \u03bc + \u03c3 \u03b5", numbers(formatPair(z)), CODE.reparameterize));
  }
  const image = paintImage(model.decode(z), "x decoded at z");
  rows.push(...hidden(decoded), layerRow("x\u2032, 784 probabilities", image, CODE.decode));
  rows.push(layerRow("BCE at this z", numbers(`${formatNats(-model.logLikelihood(x, z))} nats`), CODE.bce));
  if (content.stochastic && model.components.length === 1) {
    const isKnown = terms !== null && Number.isFinite(terms.kld);
    rows.push(layerRow("KLD", numbers(isKnown ? `${formatNats(terms.kld)} nats` : "\u2013"), CODE.kld));
  }
  $("layers").replaceChildren(...rows);
}

function startLayers() {
  const showSoon = oncePerFrame(showLayers);
  watch(["subject", "epsilon", "terms", "theme"], showSoon);
  $("network").addEventListener("toggle", showSoon);
}

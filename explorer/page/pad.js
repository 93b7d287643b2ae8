// The pad: the user's drawing, encoded while it is drawn.

const PAD_HINT = "Your drawing is encoded as you draw. A cross on the map marks its mean \u03bc.";
const BRUSH = { lineWidth: 17, lineCap: "round", lineJoin: "round", strokeStyle: "#000" };

const pad = $("pad");
const padContext = pad.getContext("2d", { willReadFrequently: true });

function clearPad() {
  padContext.fillStyle = "#fff";
  padContext.fillRect(0, 0, pad.width, pad.height);
  const blank = asInData(new Float32Array(784));
  showImage($("centred"), blank);
  showImage($("redrawn"), blank);
  $("drawn").textContent = PAD_HINT;
  update({ drawn: null });
}

/** What is on the pad: Float32Array (width * height), 1 where it is black. */
function readPad() {
  const { data } = padContext.getImageData(0, 0, pad.width, pad.height);
  return Float32Array.from({ length: data.length / 4 }, (_, k) => 1 - data[4 * k] / 255);
}

/** A drawing in the tones of the images that the network knows: some are dark on light. */
function asInData(drawing) {
  return content.lightPaper ? drawing.map((p) => 1 - p) : drawing;
}

function encodeDrawing() {
  const centred = centreDrawing(readPad(), pad.width);
  if (!centred) return;
  const x = asInData(centred);
  const drawn = model.encode(x);
  showImage($("centred"), x);
  showImage($("redrawn"), model.decode(drawn.mu));
  const terms = listLossTerms(x, drawn).map(([name, value]) => `${name} ${value}`);
  $("drawn").textContent = `\u03bc ${formatPair(drawn.mu)}; ${terms.join(", ")}`;
  update({ drawn });
}

function drawDrawing(context) {
  if (state.drawn) drawPosterior(context, state.drawn, state.theme.accent);
}

function listenToPad() {
  const encodeSoon = oncePerFrame(encodeDrawing);
  let pointer = null; // the id of the pointer that draws
  let last = null; // where it was

  function drawTo(event) {
    const scale = pad.width / pad.clientWidth;
    const now = [event.offsetX * scale, event.offsetY * scale];
    padContext.beginPath();
    padContext.moveTo(...(last ?? now));
    padContext.lineTo(...now);
    padContext.stroke();
    last = now;
    encodeSoon();
  }

  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    pad.setPointerCapture(event.pointerId);
    pointer = event.pointerId;
    last = null;
    drawTo(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId === pointer) drawTo(event);
  });
  pad.addEventListener("lostpointercapture", (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
}

function startPad() {
  Object.assign(padContext, BRUSH);
  $("clear").addEventListener("click", clearPad);
  listenToPad();
  clearPad();
}

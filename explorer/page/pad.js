// The pad: the user's drawing, explained while it is drawn.

const BRUSH_WIDTH = 17; // bitmap pixels
const INK = "#000";

const pad = $("pad");
const padContext = pad.getContext("2d", { willReadFrequently: true });

function clearPad() {
  padContext.fillStyle = "#fff";
  padContext.fillRect(0, 0, pad.width, pad.height);
  showImage($("centred"), asInData(new Float32Array(784)));
  if (isDrawingExplained()) explain(null, null);
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
  showImage($("centred"), x);
  explain(x, null);
}

function isDrawingExplained() {
  return state.subject !== null && state.subject.index === null;
}

function listenToPad() {
  const encodeSoon = oncePerFrame(encodeDrawing);
  let pointer = null; // the id of the pointer that draws
  let last = null; // where it was

  function drawTo(event) {
    const scale = pad.width / pad.clientWidth;
    const now = [event.offsetX * scale, event.offsetY * scale];
    strokePath(padContext, [last ?? now, now], INK, BRUSH_WIDTH);
    fillDot(padContext, now, BRUSH_WIDTH / 2, INK); // a line from a point to itself leaves nothing
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
  $("clear").addEventListener("click", clearPad);
  listenToPad();
  clearPad();
}

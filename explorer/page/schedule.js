// Scheduling that keeps the page responsive.

const SLICE_MS = 8; // half of a frame at 60 Hz

/** A function that runs `task` at the screen's next frame, however often it is called before then. */
function oncePerFrame(task) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      task();
    });
  };
}

/** Run a task soon, after what the browser has to do. A timer of 0 ms would wait for 4 when it is set by another. */
const soon = (() => {
  const tasks = [];
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => tasks.shift()();
  return (task) => {
    tasks.push(task);
    port2.postMessage(null);
  };
})();

/**
 * A function that starts a long job after `delay` milliseconds and runs it in short slices.
 * Calling it again abandons the job and starts a new one; its argument is another delay.
 * @param job generator function that yields where it may be interrupted.
 */
function inSlices(job, delay) {
  let timer = 0;
  let run = 0; // counts the starts: a slice of an earlier one does nothing
  return (wait = delay) => {
    clearTimeout(timer);
    const mine = ++run;
    timer = setTimeout(() => {
      const steps = job();
      soon(function runSlice() {
        if (mine !== run) return;
        const end = performance.now() + SLICE_MS;
        while (performance.now() < end) {
          if (steps.next().done) return;
        }
        soon(runSlice);
      });
    }, wait);
  };
}

// The colours of page.css for the canvases, which cannot use CSS variables.

const CLASS_COLORS = 20;
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const forcedColors = matchMedia("(forced-colors: active)");

/** The computed value of a CSS variable that holds a colour, as "#rrggbb". */
function readColor(name) {
  const probe = $("probe");
  probe.style.color = `var(${name})`;
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g) ?? [0, 0, 0];
  return `#${parts.slice(0, 3).map((part) => Math.round(part).toString(16).padStart(2, "0")).join("")}`;
}

function readTheme() {
  const read = readColor;
  const classes = Array.from({ length: CLASS_COLORS }, (_, i) => read(`--c${i}`));
  const theme = { dark: darkScheme.matches, classes };
  for (const name of ["ink", "soft", "accent", "card", "bce", "kld", "gap"]) theme[name] = read(`--${name}`);
  return theme;
}

/** Colour of a class, of which there are at most twenty. */
function classColor(label) {
  return state.theme.classes[label];
}

function startTheme() {
  const refresh = () => update({ theme: readTheme() });
  refresh();
  for (const query of [darkScheme, forcedColors]) query.addEventListener("change", refresh);
  // A page in a hidden frame has no style until it is shown.
  new ResizeObserver(() => state.theme.ink === readTheme().ink || refresh()).observe(document.documentElement);
}

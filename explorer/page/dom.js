// Elements of the page.

const $ = (id) => document.getElementById(id);

/** Fill a <dl> with rows of [name, value]. */
function fillList(list, rows) {
  list.replaceChildren();
  for (const [name, value] of rows) {
    const term = document.createElement("dt");
    term.textContent = name;
    const description = document.createElement("dd");
    description.textContent = value;
    list.append(term, description);
  }
}

/** Have a screen reader speak a text. */
function announce(text) {
  $("spoken").textContent = text;
}

// At the start: an image is selected, and a line says what to try.

function startWelcome() {
  watch(["ready"], () => {
    select(content.first);
    openView();
  });
  $("dismiss").addEventListener("click", () => {
    $("welcome").hidden = true;
    $("map").focus();
  });
}

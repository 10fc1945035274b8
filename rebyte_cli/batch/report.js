// Show the lines that have some words and a status.
const find = document.querySelector(".find");

function narrow() {
  const words = find.elements.words.value.toLowerCase(), status = find.elements.status.value;
  let count = 0;
  for (const line of document.querySelectorAll(".lines.all > *")) {
    const is = line.querySelector(".status").textContent;
    line.hidden = (status && is !== status) || !line.textContent.toLowerCase().includes(words);
    count += !line.hidden;
  }
  find.querySelector("output").textContent = `${count} shown`;
}

localize(document);
if (find) {
  find.hidden = false;
  for (const kind of ["input", "change"]) find.addEventListener(kind, narrow);
  find.addEventListener("submit", (event) => event.preventDefault());
}

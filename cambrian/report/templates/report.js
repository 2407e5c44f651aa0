"use strict";
const main = document.querySelector("main");
const buttons = document.querySelectorAll(".faces button");
for (const button of buttons) {
  button.addEventListener("click", () => {
    main.dataset.face = button.dataset.face;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
  });
}
// Drawings with tooltips take the place of the still ones when they come near the screen; the still ones are the same.
const specs = JSON.parse(document.getElementById("specs").textContent);
const colours = JSON.parse(document.getElementById("page-colours").textContent);
function follow(element) {
  for (const name of ["fill", "stroke"]) {
    for (const part of element.querySelectorAll(`[${name}]`)) {
      const variable = colours[part.getAttribute(name)];
      if (variable) part.setAttribute(name, variable);
    }
  }
}
async function draw(chart) {
  const fresh = document.createElement("div");
  try {
    await vegaEmbed(fresh, specs[chart.dataset.figure], { actions: false, renderer: "svg" });
  } catch (error) {
    console.error(`figure ${chart.dataset.figure}: ${error}`);
    return;
  }
  follow(fresh);
  chart.replaceChildren(fresh);
}
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "400px" });
for (const chart of document.querySelectorAll("[data-figure]")) watcher.observe(chart);

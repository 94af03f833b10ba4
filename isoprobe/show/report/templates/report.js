"use strict";

/* Tables: a heading sorts by its column, numbers from large to small at first. */
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const numeric = heading.classList.contains("num");
      const before = heading.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (!numeric) return cell.textContent;
        return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      };
      const sign = descending ? -1 : 1;
      const rows = [...table.tBodies[0].rows].sort((one, two) => {
        const a = key(one), b = key(two);
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : a.localeCompare(b));
      });
      table.tBodies[0].append(...rows);
    });
  });
}

/* Explorer: sliders over decoded walks. */
const source = document.getElementById("explorer");
if (source) explore(JSON.parse(source.textContent));

function explore(data) {
  const last = data.steps - 1;
  const percent = (at, count) => `${count > 1 ? (100 * at) / (count - 1) : 0}%`;
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const range = (rows) => {
    let low = Infinity, high = -Infinity;
    for (const row of rows) for (const v of row) { low = Math.min(low, v); high = Math.max(high, v); }
    return high > low ? [low, high] : [low - 0.5, low + 0.5];
  };
  const shape = (values, [low, high]) =>
    values.map((v, i) => {
      const x = values.length > 1 ? (100 * i) / (values.length - 1) : 50;
      return `${i ? "L" : "M"}${x.toFixed(2)} ${(58 - (56 * (v - low)) / (high - low)).toFixed(2)}`;
    }).join("") + (values.length > 1 ? "" : "h0.01");

  const views = {
    image(rank) {
      const frame = make("div", "frame");
      frame.style.aspectRatio = `${data.width} / ${data.height}`;
      frame.style.backgroundImage = `url(${data.sprite})`;
      frame.style.backgroundSize = `${100 * data.steps}% ${100 * data.latents.length}%`;
      const show = (step) => {
        frame.style.backgroundPosition =
          `${percent(step, data.steps)} ${percent(rank, data.latents.length)}`;
      };
      return { element: frame, show };
    },
    line(rank) {
      const space = "http://www.w3.org/2000/svg";
      const drawing = document.createElementNS(space, "svg");
      drawing.setAttribute("viewBox", "0 0 100 60");
      drawing.setAttribute("class", "curve");
      const limits = range(data.values[rank]);
      const rest = document.createElementNS(space, "path");
      const path = document.createElementNS(space, "path");
      rest.setAttribute("class", "rest");
      rest.setAttribute("d", shape(data.values[rank][Math.round(last / 2)], limits));
      drawing.append(rest, path);
      const show = (step) => path.setAttribute("d", shape(data.values[rank][step], limits));
      return { element: drawing, show };
    },
  };

  const cards = data.latents.map((latent, rank) => {
    const card = make("div", "card");
    const name = make("div", "name");
    const where = make("span");
    name.append(make("strong", "", `latent ${latent}`), where);
    const view = views[data.kind](rank);
    const slider = make("input");
    Object.assign(slider, { type: "range", min: 0, max: last, step: 1, value: Math.round(last / 2) });
    slider.setAttribute("aria-label", `latent ${latent}`);
    const move = () => {
      const step = Number(slider.value);
      view.show(step);
      where.textContent = `y ${data.y[rank][step].toFixed(data.digits[rank]).replace(/^-(0\.?0*)$/, "$1")}`;
      slider.setAttribute("aria-valuetext", `y ${data.y[rank][step]}, z ${data.z[rank][step]}`);
    };
    slider.addEventListener("input", move);
    move();
    card.append(name, view.element, slider);
    document.getElementById("cards").append(card);
    return card;
  });

  const strip = document.getElementById("strip");
  const bars = [...document.querySelectorAll(".bar")];
  const choose = (rank) => {
    cards.forEach((card, other) => card.classList.toggle("chosen", other === rank));
    bars.forEach((bar, other) => bar.setAttribute("aria-pressed", String(other === rank)));
    const walk = data.y[rank].map((_, step) => {
      const holder = make("div", "view");
      const view = views[data.kind](rank);
      view.show(step);
      holder.append(view.element);
      return holder;
    });
    strip.replaceChildren(make("span", "label", `latent ${data.latents[rank]}`), ...walk);
  };
  bars.forEach((bar, rank) => {
    const fill = bar.querySelector(".fill");
    fill.style.height = `${100 * Number(fill.dataset.weight)}%`;
    for (const happening of ["mouseenter", "focus", "click"]) {
      bar.addEventListener(happening, () => choose(rank));
    }
  });
  choose(0);
}

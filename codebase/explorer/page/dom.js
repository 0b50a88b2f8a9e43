// Elements, images and small charts.

export const FIRST = 10; // dimensions of z that are shown at once

/** An element: attributes, of which functions are listeners, and children. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** A number as people read it. */
export function shown(value, digits = 2) {
  if (value === null || !Number.isFinite(value)) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** z with a subscript: z₁₂. */
export function zName(d) {
  return `z${String(d + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;
}

/** A canvas for images of the model's shape, [channels, height, width]. */
export function imageCanvas(shape, label, attributes = {}) {
  const [, height, width] = shape;
  return element("canvas", { width, height, role: "img", "aria-label": label, ...attributes });
}

/** Draw an image of values in [0, 1], a channel after another, at a place of a canvas. */
export function drawImage(canvas, shape, values, left = 0, top = 0) {
  const [channels, height, width] = shape;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = 255 * values[channels === 3 ? c * size + i : i]; // it is clamped
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, left, top);
}

/** A bar in a table's cell, from 0 to a share of its width. */
export function bar() {
  const inner = element("i");
  const outer = element("span", { class: "bar", "aria-hidden": "true" }, inner);
  outer.show = (share) => {
    inner.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  };
  return outer;
}

/** A place for something that comes after what the browser has to draw first. */
export const soon = (act) => setTimeout(act, 0);

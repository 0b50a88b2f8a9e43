// Names of numbers: buttons that show the formula, in the letters of the lecture.

import { element, shown } from "./dom.js";

/** The decoder's mean, as the lecture writes it. */
export const meanOf = (model) => (model.yDim ? "E[x|y, z]" : "E[x|z]");

/** The formulas of a model: what a name stands for, and the function that computes it. */
export function formulasOf(model, kind) {
  const given = model.yDim ? "x, y" : "x";
  const observed = kind === "FSVAE" ? "|y" : "";
  const cond = model.yDim ? "y, z" : "z";
  const [normal, spread] = model.gaussian ? ["N", "diag v"] : ["Laplace", "b"];
  const divergence = `KL(q(z|${given}) ‖ p(z))`;
  let prior = model.gaussian ? "p(z) = N(0, I)" : "p(z) = Π_d Laplace(z_d; 0, 1)";
  let klOne = model.gaussian
    ? "½ (v_d + m_d² − 1 − log v_d)"
    : "|m_d| + b_d·exp(−|m_d| / b_d) − 1 − log b_d";
  let kl = `${divergence} = Σ_d [${klOne}]`;
  let klCode = model.gaussian ? "utils.kl_normal" : "utils.kl_laplace";
  if (model.mixture) {
    klCode = "";
    prior = `p(z) = (1/${model.k}) Σ_c N(z; μ_c, diag σ²_c)`;
    kl = `${divergence} = E_q[log q(z|x) − log p(z)], a mean over draws of z`;
    klOne =
      "E_q[log q(z_d|x) − log p(z_d)]; “between” is the rest of KL, because the mixture prior ties the " +
      "dimensions together";
  }
  const pixel = model.likelihood.binary
    ? `log p(x|${cond}) = Σ_i (x_i h_i − log(1 + e^{h_i})), h the decoder's logits`
    : `log p(x|${cond}) = Σ_i log N(x_i; μ_i, ${model.likelihood.variance}), μ = E[x|${cond}]`;
  const formulas = {
    z: [`${prior}. The sliders go to ±4 standard deviations of the prior`, "sample_z"],
    mean: [
      model.likelihood.binary || model.likelihood.squash
        ? `E[x|${cond}] = sigmoid(h(${cond})), h the decoder's outputs`
        : `E[x|${cond}] = μ(${cond}), the decoder's outputs`,
      "compute_mean_given",
    ],
    q: [
      `q(z|${given}) = ${normal}(z; m(${given}), ${spread}(${given})): the encoder's two outputs`,
      "enc.encode",
    ],
    kl: [kl, model.mixture ? "kl_to_prior" : "negative_elbo_bound"],
    klOne: [`KL_d = ${klOne}`, klCode],
    rec: [`Rec = −E_q[log p(x|${cond})], a mean over draws of z; ${pixel}`, "log_prob"],
    nelbo: [`NELBO = KL + Rec ≥ −log p(x${observed})`, `${kind}.negative_elbo_bound`],
    iwae: [
      `−log (1/m) Σ_i w_i, w_i = p(x, z_i${observed}) / q(z_i|${given}), z_i ~ q; it falls ` +
        `towards −log p(x${observed}) as m grows (Burda et al. 2016, eq. 8)`,
      `${kind}.negative_iwae_bound`,
    ],
    spread: ["the standard deviation of the bound from one set of m draws to another", ""],
    ess: ["ESS = (Σ_i w_i)² / Σ_i w_i²: the number of equal weights that would be as precise", ""],
    between: ["E_q[log Π_d p(z_d) − log p(z)]: KL less the sum of its dimensions", ""],
  };
  if (kind === "SSVAE") {
    const sum = (term) => `Σ_y q(y|x)·${term}`;
    formulas.nelbo = ["NELBO = KL_y + KL_z + Rec ≥ −log p(x)", "SSVAE.negative_elbo_bound"];
    formulas.kl = [`KL_z = ${sum("KL(q(z|x, y) ‖ p(z))")}`, "SSVAE.negative_elbo_bound"];
    formulas.rec = [
      `Rec = −${sum("E_q[log p(x|y, z)]")}, a mean over draws of z; ${pixel}`,
      "SSVAE.negative_elbo_bound",
    ];
    formulas.kly = ["KL_y = Σ_y q(y|x) (log q(y|x) + log 10)", "utils.kl_cat"];
    formulas.qy = ["q(y|x) = softmax of the classifier's ten outputs", "cls.classify"];
    formulas.klOfY = [kl, "utils.kl_normal"];
    formulas.recOfY = ["−E_q[log p(x|y, z)] for this y", "likelihood.log_prob"];
    formulas.term = ["q(y|x) · (KL_z(y) + Rec(y)): what this label adds to the sum", ""];
    formulas.iwae[0] =
      "−log (1/m) Σ_i w_i, w_i = p(x, y_i, z_i) / (q(y_i|x) q(z_i|x, y_i)), y_i, z_i ~ q; it falls " +
      "towards −log p(x) as m grows";
  }
  if (model.yDim) formulas.iwae[1] = "";
  return formulas;
}

/** Makes names whose formula is a click away, below the heading of their part of the page. */
export class Names {
  constructor(formulas) {
    this.formulas = formulas;
    this.count = 0;
  }

  /** A button with a name; it shows the formula in `place`, and hides it again. */
  name(key, text, place) {
    const [formula, code] = this.formulas[key];
    const button = element("button", {
      type: "button",
      class: "name",
      title: "show the formula",
      "aria-expanded": "false",
      "aria-controls": place.id,
    });
    button.append(text);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      for (const other of document.querySelectorAll(`[aria-controls="${place.id}"]`)) {
        other.setAttribute("aria-expanded", "false");
      }
      button.setAttribute("aria-expanded", String(open));
      place.replaceChildren();
      if (open) place.append(element("span", {}, `${text}: ${formula}`));
      if (open && code) place.append(" ", element("code", {}, code));
      place.hidden = !open;
    });
    return button;
  }

  /** A name, a number that changes, and its unit; `show` sets the number. */
  number(key, text, place, unit = "nats", digits = 2) {
    const output = element("b", { "data-number": key });
    const made = element("span", { class: "number" }, this.name(key, text, place), " ", output);
    if (unit) made.append(` ${unit}`);
    made.show = (value) => {
      output.textContent = shown(value, digits);
    };
    return made;
  }

  /** Where a part of the page shows formulas. */
  place() {
    this.count += 1;
    return element("p", {
      class: "formula",
      id: `formula-${this.count}`,
      "aria-live": "polite",
      hidden: true,
    });
  }
}

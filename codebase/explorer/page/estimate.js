// The bound of an image, term by term: means over draws of z that become exact as they go on.

import { seeded } from "./densities.js";

const LEAST = 2; // draws for a label that is all but excluded

export class Estimate {
  /** The model, an image, and its label; a model that classifies sums over all labels. */
  constructor(model, x, label) {
    Object.assign(this, { model, x, label, draws: 0 });
    this.random = seeded(1); // the same draws each time: only another image changes the numbers
    this.logQ = model.classifies ? model.classify(x) : null;
    const labels = this.logQ ? this.logQ.map((_, y) => y) : [label];
    this.parts = labels.map((y) => {
      const q = model.encode(x, y);
      const closed = model.klOfDimensions(q);
      return {
        y, q, closed, share: this.logQ ? Math.exp(this.logQ[y]) : 1, draws: 0, rec: 0,
        kl: closed ? total(closed) : 0, dimensions: closed ?? new Float64Array(model.zDim),
      };
    });
  }

  /** Draw more: labels in proportion to q(y|x). */
  add(count) {
    this.draws += count;
    for (const part of this.parts) {
      const wanted = Math.max(Math.round(this.draws * part.share), LEAST);
      while (part.draws < wanted) this.draw(part);
    }
  }

  draw(part) {
    const { model, x } = this;
    const { y, q, closed, dimensions } = part;
    const z = model.drawPosterior(q, this.random);
    part.draws += 1;
    part.rec += (-model.logLikelihood(x, model.decode(z, y)) - part.rec) / part.draws;
    if (closed) return;
    part.kl += (model.klAt(z, q) - part.kl) / part.draws;
    for (let d = 0; d < model.zDim; d++) {
      const one = model.family.logDensity(z[d], q.m[d], q.v[d]) - model.logPriorOf(z[d], d);
      dimensions[d] += (one - dimensions[d]) / part.draws;
    }
  }

  /** The part of the label: its posterior, and KL by dimension. */
  get own() {
    return this.logQ ? this.parts[this.label] : this.parts[0];
  }

  get kl() {
    return total(this.parts.map(({ share, kl }) => share * kl));
  }

  get rec() {
    return total(this.parts.map(({ share, rec }) => share * rec));
  }

  /** KL(q(y|x) ‖ p(y)); 0 where no label is inferred. */
  get kly() {
    if (!this.logQ) return 0;
    return total(this.logQ.map((logQ) => Math.exp(logQ) * (logQ + Math.log(this.model.yDim))));
  }

  get nelbo() {
    return this.kl + this.kly + this.rec;
  }

  /** What KL has beyond the sum of its dimensions: a mixture ties them together. */
  get between() {
    return this.own.kl - total(this.own.dimensions);
  }
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);

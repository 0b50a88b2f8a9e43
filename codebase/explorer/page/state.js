// What the parts of the page share: the image x, its label and its bound; z, and the class y that is
// decoded with it.

export class State {
  constructor() {
    this.values = { x: null, label: null, name: "", z: null, y: 0, estimate: null };
    this.listeners = [];
    this.changed = new Set();
    this.since = null;
    this.slowest = 0; // milliseconds from a change to the end of its drawing
  }

  /** Call a function after any of some values has changed, in the next frame. */
  on(keys, listener) {
    this.listeners.push([keys, listener]);
  }

  /** Change some values. */
  set(values) {
    Object.assign(this.values, values);
    if (this.since === null) {
      this.since = performance.now();
      requestAnimationFrame(() => this.tell());
    }
    for (const key of Object.keys(values)) this.changed.add(key);
  }

  tell() {
    const { changed, since } = this;
    this.changed = new Set();
    this.since = null;
    for (const [keys, listener] of this.listeners) {
      if (keys.some((key) => changed.has(key))) listener(this.values);
    }
    this.slowest = Math.max(this.slowest, performance.now() - since);
  }
}

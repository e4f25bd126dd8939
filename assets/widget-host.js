// Runs the interactive figures of a built page without a kernel, from a server or from disk.
// A page carries the saved state of its widgets and one placeholder per figure (both written by MyST-NB); each
// widget that brings its own module (anywidget) is given a model with the methods it knows from Jupyter, and `script`.
(() => {
  "use strict";
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const HERE = document.currentScript.src;
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  function bytes(text) {
    const raw = atob(text);
    const array = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) array[i] = raw.charCodeAt(i);
    return new DataView(array.buffer);
  }

  function values(saved) {
    const state = { ...saved.state };
    for (const { path, data, encoding } of saved.buffers || []) {
      if (encoding !== "base64") throw new Error(`a buffer is ${encoding}, base64 is expected`);
      let at = state;
      for (const key of path.slice(0, -1)) at = at[key];
      at[path.at(-1)] = bytes(data);
    }
    return state;
  }

  class Model {
    constructor(state) { this.state = state; this.listeners = new Map(); }
    get(name) { return this.state[name]; }
    set(name, value) {
      if (this.state[name] === value) return;
      this.state[name] = value;
      for (const listener of [...(this.listeners.get(`change:${name}`) || [])]) listener();
    }
    on(event, listener) {
      if (!this.listeners.has(event)) this.listeners.set(event, new Set());
      this.listeners.get(event).add(listener);
    }
    off(event, listener) { this.listeners.get(event)?.delete(listener); }
    save_changes() {}
    send() {}
    // For a figure that needs more than its saved state: loads a script that lies beside this one.
    script(name) {
      return new Promise((done, failed) => {
        const script = document.createElement("script");
        script.onload = done;
        script.onerror = () => failed(new Error(`${name} is missing`));
        script.src = new URL(name, HERE);
        document.head.append(script);
      });
    }
  }

  function module(source) {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    return import(url).finally(() => URL.revokeObjectURL(url));
  }

  function say(place, text) {
    const note = document.createElement("p");
    note.className = "widget-note";
    note.textContent = text;
    place.replaceChildren(note);
  }

  async function start(script, saved, models) {
    const place = document.createElement("div");
    place.className = "widget-place";
    script.after(place);
    try {
      const id = JSON.parse(script.textContent).model_id;
      if (!saved[id]?.state?._esm) {
        return say(place, "This control works in a running notebook; the page holds no saved state of it.");
      }
      const state = models.has(id) ? models.get(id).state : values(saved[id]);
      if (!models.has(id)) models.set(id, new Model(state));
      const { default: widget } = await module(state._esm);
      const parts = typeof widget === "function" ? await widget() : widget;
      const model = models.get(id);
      await parts.initialize?.({ model });
      await parts.render({ model, el: place });
      place.dataset.ready = "yes";
    } catch (error) {
      say(place, `This figure could not be started (${error.message}). It works in a running notebook.`);
    }
  }

  function run() {
    const saved = {};
    for (const script of document.querySelectorAll(STATE)) {
      try { Object.assign(saved, JSON.parse(script.textContent).state); } catch { /* each figure then says so */ }
    }
    const models = new Map();
    for (const script of document.querySelectorAll(VIEW)) start(script, saved, models);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
  else run();
})();

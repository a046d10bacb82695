// What the page keeps in the browser's store, so that a reload at any time finds it. Gradio's BrowserState writes it;
// these functions decide what is written. Components fire their events while they are made, with their defaults: what
// comes before `begin` is dropped.
window.browserState = {
  now: {}, // by the store's key, what is kept, from `begin` on

  keep(key, name, stored, value) {
    const now = this.now[key];
    if (!now) return [stored];
    now[name] = value;
    return [{...now}];
  },

  // What each window has for itself; a new one begins with what the newest of the others has.
  ofWindow(key, stored) {
    try { return JSON.parse(sessionStorage.getItem(key)) ?? stored; } catch { return stored; }
  },

  keepInWindow(key, value) {
    try { sessionStorage.setItem(key, JSON.stringify(value)); } catch { /* a private window: nothing is kept */ }
  },

  // `drawn` is what the fields held when the server made the page: one that holds something else was changed by a
  // person, who was faster than the server's answer.
  begin(key, names, drawn, together, stored, ...held) {
    const now = (this.now[key] = {...stored});
    const changed = names.map((_, i) => (held[i] ?? null) !== null && JSON.stringify(held[i]) !== JSON.stringify(drawn[i]));
    names.forEach((name, i) => { if (changed[i] || (together && changed.includes(true))) now[name] = held[i]; });
    return [{...now}, ...names.map((name, i) => (name in now ? now[name] : held[i]))];
  },
};

// What the page keeps in the browser's store, so that a reload at any time finds it. Gradio's BrowserState writes it;
// these functions decide what is written. Components fire their events while they are made, with their defaults: what
// comes before `begin` is dropped, unless only a person fires it.
window.browserState = {
  now: {}, // by the store's key, what is kept, from `begin` on
  early: {}, // by the store's key, what a person chose before

  keep(key, name, byHand, stored, value) {
    const now = this.now[key];
    if (now) {
      now[name] = value;
      return [{...now}];
    }
    if (byHand) (this.early[key] ??= {})[name] = value;
    return [stored];
  },

  begin(key, stored) {
    const now = (this.now[key] = {...stored, ...this.early[key]});
    return [{...now}];
  },

  // The tab that was open is opened by the browser itself: an answer of the server's would come after the click of one
  // who is quick. A run that is newly named in the address is shown in Train.
  openTab(key) {
    const now = this.now[key];
    const linked = new URLSearchParams(location.search).get('run');
    if (linked && linked !== now.linked && !this.early[key]?.tab) now.tab = 'train';
    now.linked = linked;
    [...document.querySelectorAll('#tabs button')].find((button) => button.dataset.tabId === now.tab)?.click();
    return [{...now}];
  },
};

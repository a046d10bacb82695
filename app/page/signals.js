// A listener's own event, fired once a burst of changes is over. `element` and `trigger` are handed in by gr.HTML;
// what is fired before the page has made this component waits for it (`signalsDue`). What belongs to a page of the
// studio that is not open waits until it is.
const BURST = 30; // milliseconds
const due = {};
const missed = {};
window.fireSignal = (name, page = null) => {
  if (page && window.studio.page !== page) {
    (missed[page] ??= new Set()).add(name);
    return;
  }
  clearTimeout(due[name]);
  due[name] = setTimeout(() => trigger(name), BURST);
};
document.addEventListener('page-shown', ({detail: page}) => {
  const names = missed[page] ?? [];
  delete missed[page];
  for (const name of names) window.fireSignal(name);
});
for (const [name, page] of window.signalsDue ?? []) window.fireSignal(name, page);
window.signalsDue = undefined;

// A listener's own event, fired once a burst of changes is over. `element` and `trigger` are handed in by gr.HTML;
// what is fired before the page has made this component waits for it (`signalsDue`).
const BURST = 30; // milliseconds
const due = {};
window.fireSignal = (name) => {
  clearTimeout(due[name]);
  due[name] = setTimeout(() => trigger(name), BURST);
};
for (const name of window.signalsDue ?? []) window.fireSignal(name);
window.signalsDue = undefined;

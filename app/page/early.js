// What needs the open run, and is asked for before the page knows it, waits for it: without a run the base model alone
// would answer. Such parts have the class needs-run.
(() => {
  let held = null; // what is done once the run is known; the newest counts

  const isKnown = () => {
    const place = window.browserState.now.hydralora;
    return place && document.querySelector('#run textarea, #run input')?.value === (place.run ?? '');
  };
  const wait = () => {
    if (!isKnown()) return requestAnimationFrame(wait);
    const act = held;
    held = null;
    act();
  };
  const hold = (event, act) => {
    if (!event.target.closest?.('.needs-run') || isKnown()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!held) requestAnimationFrame(wait);
    held = act;
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('button');
    // An example may have been drawn again meanwhile.
    const same = () => [...document.querySelectorAll('.needs-run button')].find(({title}) => title === button.title);
    if (button) hold(event, () => (button.isConnected ? button : same())?.click());
  }, true);
  document.addEventListener('keypress', (event) => {
    if (event.key === 'Enter' && !event.shiftKey) hold(event, () => document.querySelector('#send').click());
  }, true);
})();

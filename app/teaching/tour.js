// The tour: eight steps over the real pages and the run that ships with the app. A step opens its page, spotlights what
// it explains, and is a link (?step=6). The library driver.js draws the spotlight and places the text.
const STEPS = [
  {
    page: 'data', spots: ['#data-table'], title: 'The data',
    text: `The demo has four kinds of rows. Each row is a question and its expected answer. One model is to learn all
four.`,
  },
  {
    page: 'components', spots: ['#map', '#elbow'], title: 'Components',
    text: `Each point is a row. Rows that are alike form a component. The demo has four. Their number becomes the number
of heads.`,
  },
  {
    page: 'components', spots: ['#component-list', '#components'], title: 'Why one LoRA interferes',
    text: `A plain LoRA has one A and one B for all rows. Every component pulls at the same weights. What helps one of
them can undo what helped another.`,
  },
  {
    page: 'explore', spots: ['#points', '#ab-0'], title: 'A and the heads',
    text: `HydraLoRA has one A for all rows, and several heads B. Each point is one head in one layer, in its head's
colour. The heads of a layer began as one point. They have parted while they learnt.`,
  },
  {
    page: 'chat', spots: ['#mixer'], saved: true, title: 'The router',
    text: `The router reads each token and gives every head a gate. The gates sum to 1. The bars show the gates of one
token. No row was ever assigned to a head.`,
  },
  {
    page: 'chat', spots: ['#heatmap'], saved: true, token: 3, title: 'The gates of a token',
    text: `One token of the answer is selected. Each row is a head, each column a layer. The stronger the colour, the
larger the gate. Head 1 leads: it has learnt to reverse lists.`,
  },
  {
    page: 'chat', spots: ['#conversation'], saved: true, solo: 3, title: 'Pin a head, and see it fail',
    text: `Solo gives head 4 the whole weight. Head 4 has learnt to write JSON. So the same question is now answered as
JSON, which is wrong.`,
  },
  {
    page: 'chat', spots: ['#answer-base', '#conversation'], saved: true, title: 'The base model beside it',
    text: `The base model answers the same question without A, heads and router. It repeats the list. Train shows how
both do on 200 held-out rows.`,
  },
];
const QUESTION = 'Reverse the order of the words in this list. apple, boat, cloud, lamp'; // of the saved answers
const LOOK = 150; // milliseconds between looks for what a step explains
const PATIENCE = {spot: 15_000, answer: 20_000, steered: 90_000}; // milliseconds
const calm = matchMedia('(prefers-reduced-motion: reduce)');
let at = null; // the step, from 0; null outside of the tour
let visit = 0; // grows with every step: what belongs to an earlier one stops
let goesBack = false;
let shown = null; // the element in the spotlight, or null
let soloed = false;
let saved = false; // whether the tour has put its answer into Chat

const spotlight = window.driver.js.driver({
  animate: !calm.matches, smoothScroll: false, allowKeyboardControl: false, overlayClickBehavior: () => {},
  stagePadding: 6, stageRadius: 8, overlayOpacity: 0.6, popoverOffset: 12,
});

const find = (query) => document.querySelector(query);
const visible = (node) =>
  Boolean(node?.offsetWidth && node.offsetHeight && getComputedStyle(node).visibility !== 'hidden');
const tell = (name, data) => window.studio.tellTour?.(name, data);

// Waits until something is true; false after a while, or once another step is shown.
const until = async (what, number, patience) => {
  for (const end = Date.now() + patience; number === visit && Date.now() < end; ) {
    if (what()) return true;
    await new Promise((done) => setTimeout(done, LOOK));
  }
  return false;
};

const draw = (element, wait = '') => {
  const {title, text} = STEPS[at];
  const last = at === STEPS.length - 1;
  shown = element;
  spotlight.highlight({
    element: element ?? undefined,
    popover: {
      title, description: text.replaceAll('\n', ' ') + (wait && `\n\n${wait}`), side: 'right', align: 'center',
      showButtons: at ? ['next', 'previous', 'close'] : ['next', 'close'],
      nextBtnText: last ? 'Done' : 'Next', prevBtnText: 'Back',
      showProgress: true, progressText: `${at + 1} of ${STEPS.length}`,
      onNextClick: () => go(at + 1), onPrevClick: () => go(at - 1), onCloseClick: () => leave(),
      onPopoverRender: ({wrapper, nextButton, previousButton, closeButton}) => {
        closeButton.setAttribute('aria-label', 'Leave the tour');
        wrapper.dataset.step = at + 1;
        // The library focuses the first button, which is the one that leaves.
        queueMicrotask(() => (goesBack && at ? previousButton : nextButton).focus());
      },
    },
  });
};

// Figures grow, pages move and answers are drawn again: the spotlight stays on what it shows. The library loses it where
// one step follows another before its light has moved.
let place = '';
let lost = 0; // looks in a row that found the light elsewhere
let scrolled = false; // whether a person has scrolled in this step
for (const way of ['wheel', 'touchmove']) document.addEventListener(way, () => (scrolled = true), {passive: true});
setInterval(() => {
  if (at === null || !shown) return;
  // The library says of what it lights that it opens a dialog, which a picture may not say of itself.
  for (const name of ['aria-haspopup', 'aria-expanded', 'aria-controls']) shown.removeAttribute(name);
  const spot = visible(shown) ? shown : spotOf(STEPS[at]);
  lost = spot && spotlight.getActiveElement() !== spot ? lost + 1 : 0;
  if (lost > 3) {
    lost = 0;
    return draw(spot);
  }
  const {x, y, width, height} = shown.getBoundingClientRect();
  const now = [x, y, width, height].join();
  if (now === place) return;
  place = now;
  const isOut = y > innerHeight - 100 || y + height < 100;
  if (isOut && !scrolled) shown.scrollIntoView({block: height > innerHeight / 2 ? 'start' : 'center'});
  spotlight.refresh();
}, LOOK);

const spotOf = ({spots}) => spots.map(find).find(visible) ?? null;

const isSaved = () => find('#conversation .turn:last-child .question')?.textContent === QUESTION
  && Boolean(find('#answer-run[data-ended]') && find('#answer-base[data-ended]'));

// The answer that ships with the run; then the mixer's real Solo, which asks the model, as a person's click does.
const prepare = async (step, number) => {
  if (!step.saved) return;
  const wanted = step.solo === undefined ? null : `#mixer .channel[data-head="${step.solo}"] .solo`;
  await until(() => visible(find('#mixer .channel')), number, PATIENCE.answer);
  if (number !== visit) return;
  if (!isSaved()) {
    tell('answer', {});
    saved = true;
    await until(isSaved, number, PATIENCE.answer);
  }
  const solo = wanted && find(wanted);
  if (!solo) {
    if (find('#mixer.steered, #mixer .steered')) find('#mixer .reset').click();
    soloed = false;
  } else if (solo.getAttribute('aria-pressed') !== 'true') {
    solo.click();
    soloed = true;
  }
  if (solo && !find('#answer-steered[data-ended] .token')) {
    draw(find('#mixer'), 'The model answers now. The first time it is loaded, which takes some seconds.');
    const answered = await until(() => find('#answer-steered[data-ended] .token'), number, PATIENCE.steered);
    if (!answered && number === visit) tell('answer', {steered: true}); // the saved one: the model can't be loaded here
  }
  if (step.token !== undefined) choose(step.token);
  else find('#conversation .token[aria-selected=true]')?.click(); // its label would cover other answers
};

// The token of a link, else the step's own, is selected as by a click.
const choose = (own) => {
  const tokens = find('#answer-run .tokens')?.children ?? [];
  const linked = Number(new URLSearchParams(location.search).get('token') ?? NaN);
  const isPlace = Number.isInteger(linked) && linked >= 0 && linked < tokens.length;
  const place = isPlace ? linked : Math.min(own, tokens.length - 1);
  const token = tokens[place];
  if (token && token.getAttribute('aria-selected') !== 'true') token.click();
};

const go = async (to) => {
  if (to >= STEPS.length) return leave({done: true});
  if (to < 0) return;
  const number = ++visit;
  const opened = at === null;
  goesBack = !opened && to < at;
  scrolled = false;
  document.body.classList.remove('steps-open');
  at = to;
  const step = STEPS[at];
  window.studio.store('tour', at + 1);
  if (opened) {
    window.studio.store('touring', 'yes');
    tell('begin', {});
  }
  document.body.dataset.tour = at + 1;
  if (step.page !== window.studio.page) window.studio.go(step.page, {history: 'replaceState'});
  window.studio.link({step: at + 1, ...(step.token === undefined ? {token: null} : {})});
  draw(spotOf(step));
  await prepare(step, number);
  if (number !== visit) return;
  await until(() => spotOf(step), number, PATIENCE.spot);
  if (number === visit && spotOf(step) !== shown) draw(spotOf(step));
};

const leave = ({done = false} = {}) => {
  if (at === null) return;
  visit++;
  at = null;
  spotlight.destroy();
  delete document.body.dataset.tour;
  if (done) window.studio.store('tour', 1);
  if (soloed) find('#mixer .reset')?.click();
  tell('leave', {});
  window.studio.store('touring', '');
  soloed = saved = false;
  window.studio.link({step: null, token: null});
  [...document.querySelectorAll('[data-opens=tour], #bar .menu')].find(visible)?.focus();
};

// Where the tour was left.
const open = () => {
  const stored = Number(window.studio.stored('tour'));
  go(STEPS[stored - 1] ? stored - 1 : 0);
};

document.addEventListener('keydown', (event) => {
  if (at === null || document.querySelector('dialog[open]')) return;
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (event.key !== 'Escape' && !step) return;
  if (step && event.target.closest('input, select, textarea, [role=listbox]')) return; // they use the arrow keys
  event.preventDefault();
  event.stopPropagation();
  if (step) go(at + step);
  else leave();
}, true);
document.addEventListener('click', (event) => event.target.closest('[data-opens=tour]') && open());

// A link such as ?step=6 opens the tour there, once the page and its run are known.
const linked = new URLSearchParams(location.search).get('step');
const isKnown = () => find('#run-name select')?.value && window.studio.page && window.studio.tellTour;
const whenKnown = (then) => (isKnown() ? then() : setTimeout(() => whenKnown(then), LOOK));
// A window that was closed during the tour: what was there before the tour comes back.
if (linked === null && window.studio.stored('touring'))
  whenKnown(() => {
    if (at !== null) return;
    tell('leave', {});
    window.studio.store('touring', '');
  });
if (linked !== null) {
  if (/^[1-9]$/.test(linked) && STEPS[linked - 1]) whenKnown(() => go(linked - 1));
  else {
    window.studio.link({step: null});
    window.studio.notice(`The tour has the steps 1 to ${STEPS.length}; the link names ${linked.slice(0, 20)}.`);
  }
}
window.studio.tour = {open, go: (step) => go(step - 1)};

// Present: one picture a screen, large, without forms. Arrow keys go through the screens; Escape leaves.
window.lecture.plotly = () => window.studio.plotly();
const dialog = document.createElement('dialog');
dialog.id = 'present';
dialog.className = 'teaching';
dialog.setAttribute('aria-label', 'Presentation');
dialog.innerHTML = `<div class="tools"><strong></strong>
<button type="button" class="back" aria-label="Back">‹</button><span class="place" role="status"></span>
<button type="button" class="next" aria-label="Next">›</button>
<details class="export"><summary>Export</summary><div>
<button type="button" class="save">One page that works offline</button>
<p>An HTML file with all these pictures and answers.</p>
<progress hidden></progress><p class="said" role="status"></p></div></details>
<button type="button" data-opens="class">Class</button>
<button type="button" class="leave" aria-label="Leave">✕</button></div>
<div class="screen" tabindex="-1"></div>`;
const find = (query) => dialog.querySelector(query);
const root = find('.screen');
const STEP = {ArrowRight: 1, ArrowDown: 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1};
const MOST_TURNS = 8; // of the conversation
const PATIENCE = 3000; // milliseconds until the server has said which run is chosen
const fetched = new Map(); // by path: a promise of the screen
let screens = []; // [{name, title, path}]
let at = 0;
let opener = null;
let saving = false;

const runs = () => document.querySelector('#run-name select');
const chosenRun = () => runs()?.value ?? '';

// A screen, or an error with a sentence.
const load = (path) => {
  if (!fetched.has(path))
    fetched.set(path, fetch(path).then(async (answer) => {
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error);
      return found;
    }).catch((error) => {
      fetched.delete(path);
      throw error;
    }));
  return fetched.get(path);
};

// The answers of Chat's newest turns that have ended: [{run: id, base: id, ...}], the newest last.
const ended = (turn) => Object.fromEntries([...turn.querySelectorAll('.answer[data-ended]')]
  .filter((answer) => answer.dataset.answer).map((answer) => [answer.dataset.key, answer.dataset.answer]));
const turns = () => [...document.querySelectorAll('#conversation .turn')].map(ended)
  .filter((answers) => Object.keys(answers).length).slice(-MOST_TURNS);

const show = async (to) => {
  if (!screens[to]) return;
  at = to;
  find('.export').open = false;
  const {name, path, answers} = screens[at];
  find('.place').textContent = `${at + 1} of ${screens.length}`;
  find('.back').disabled = at === 0;
  find('.next').disabled = at === screens.length - 1;
  window.studio.link({present: name});
  document.dispatchEvent(new CustomEvent('screen-shown', {detail: {name, answers}}));
  const slow = setTimeout(() => at === to && window.lecture.problem(root, 'This picture is being computed …'), 300);
  try {
    const screen = await load(path);
    clearTimeout(slow);
    if (at !== to || !dialog.open) return;
    await window.lecture.draw(root, screen);
    if (screens[at + 1]) load(screens[at + 1].path).catch(() => {});
  } catch (error) {
    clearTimeout(slow);
    if (at === to && dialog.open) window.lecture.problem(root, error.message);
  }
};

const open = async (name = '') => {
  opener = document.activeElement;
  document.body.classList.remove('steps-open');
  if (!dialog.open) dialog.showModal();
  root.focus();
  fetched.clear();
  screens = [];
  for (const end = Date.now() + PATIENCE; !chosenRun() && Date.now() < end; )
    await new Promise((done) => setTimeout(done, 100));
  const run = chosenRun();
  find('strong').textContent = runs()?.selectedOptions[0]?.textContent ?? '';
  const base = `studio/lecture/${encodeURIComponent(run)}`;
  try {
    if (!run) throw new Error('No run is chosen. Choose one, or train one, and present it.');
    const entries = await load(base);
    screens = entries.map((entry) => ({...entry, path: `${base}/screens/${entry.name}`}));
    for (const [i, answers] of turns().entries())
      screens.push({name: `turn-${i + 1}`, answers, path: `studio/turn?${new URLSearchParams(answers)}`});
    if (!screens.length) throw new Error('This run has no pictures yet. Choose another run.');
  } catch (error) {
    return window.lecture.problem(root, error.message);
  }
  show(Math.max(0, screens.findIndex((screen) => screen.name === name)));
};

// Loads every picture first: the server then only writes what it has.
const save = async () => {
  const bar = find('progress');
  const said = find('.said');
  if (saving) return;
  saving = true;
  Object.assign(bar, {hidden: false, max: screens.length + 1, value: 0});
  try {
    for (const {path} of screens) {
      said.textContent = `Picture ${bar.value + 1} of ${screens.length}`;
      await load(path);
      bar.value += 1;
    }
    said.textContent = 'Writing the page …';
    const asked = new URLSearchParams();
    for (const {answers} of screens)
      if (answers) asked.append('turn', Object.entries(answers).map((pair) => pair.join(':')).join(','));
    const answer = await fetch(`studio/lecture/${encodeURIComponent(chosenRun())}/page?${asked}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await answer.blob());
    link.download = 'lecture.html';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    said.textContent = 'Saved as lecture.html.';
  } catch (error) {
    said.textContent = error.message;
  }
  bar.hidden = true;
  saving = false;
};

document.addEventListener('keydown', (event) => {
  const step = STEP[event.key];
  if (!step || !dialog.open || event.defaultPrevented || event.target.closest('input, #class-dialog')) return;
  event.preventDefault();
  show(at + step);
});
dialog.addEventListener('close', () => {
  window.lecture.problem(root, '');
  window.studio.link({present: null});
  document.dispatchEvent(new CustomEvent('screen-shown', {detail: null}));
  const back = [opener, ...document.querySelectorAll('[data-opens=present], #bar .menu')];
  back.find((node) => node?.offsetWidth && node !== document.body)?.focus();
});
find('.back').addEventListener('click', () => show(at - 1));
find('.next').addEventListener('click', () => show(at + 1));
find('.leave').addEventListener('click', () => dialog.close());
find('.save').addEventListener('click', save);
dialog.addEventListener('click', ({target}) => { if (!target.closest('.export')) find('.export').open = false; });
document.body.append(dialog);
let dark = document.body?.classList.contains('dark');
new MutationObserver(() => {
  const before = dark;
  dark = document.body.classList.contains('dark');
  if (before !== dark && dialog.open && screens.length) show(at); // figures have the colours of the theme
}).observe(document.body, {attributes: true, attributeFilter: ['class']});
window.studio.present = {open, isOpen: () => dialog.open};
document.addEventListener('click', (event) => event.target.closest('[data-opens=present]') && open());

// A link such as ?present=training opens it, once the run is known.
const linked = new URLSearchParams(location.search).get('present');
const whenKnown = () => (chosenRun() ? open(linked) : setTimeout(whenKnown, 200));
if (linked !== null) whenKnown();

// The page of a class: it follows what the presenter shows, or looks around in the run that ships with the app. It only
// reads. Texts are set as textContent: never as HTML.
const root = document.getElementById('screen');
const state = document.getElementById('state');
const list = document.getElementById('list');
const buttons = {follow: document.getElementById('follow'), look: document.getElementById('look')};
const here = location.pathname.replace(/\/$/, '');
let mode = 'follow';
let told = null; // the newest event of the presenter
let asked = 0;

lecture.plotly = () => (lecture.loading ??= new Promise((done, failed) => {
  const script = document.createElement('script');
  script.src = '../studio/files/plotly.js';
  script.onload = () => done(window.Plotly);
  script.onerror = failed;
  document.head.append(script);
}));

const show = async (path, token = 0) => {
  const number = ++asked;
  const answer = await fetch(`${here}/${path}`).catch(() => null);
  const found = await answer?.json().catch(() => null);
  if (number !== asked) return; // something newer has been asked for
  if (answer?.ok) await lecture.draw(root, found, token);
  else lecture.problem(root, found?.error ?? 'The class can’t be reached. This page tries again.');
};

const set = (to) => {
  mode = to;
  for (const [name, button] of Object.entries(buttons)) button.setAttribute('aria-pressed', String(name === to));
  list.hidden = to !== 'look';
};

const follow = () => {
  set('follow');
  if (told?.ended) return lecture.problem(root, 'The class has ended.');
  if (told) show('now', told.token);
};

const pick = (button) => {
  for (const other of list.querySelectorAll('button')) other.setAttribute('aria-current', String(other === button));
  show(`screens/${encodeURIComponent(button.dataset.name)}`);
};

const look = async () => {
  set('look');
  if (!list.children.length) {
    const answer = await fetch(`${here}/screens`).catch(() => null);
    if (!answer?.ok) return lecture.problem(root, 'The pictures can’t be reached. Try again.');
    list.replaceChildren(...(await answer.json()).map(({name, title}) => {
      const item = document.createElement('li');
      const button = Object.assign(document.createElement('button'), {type: 'button', textContent: title});
      button.dataset.name = name;
      button.addEventListener('click', () => pick(button));
      item.append(button);
      return item;
    }));
  }
  pick(list.querySelector('[aria-current=true]') ?? list.querySelector('button'));
};

buttons.follow.addEventListener('click', follow);
buttons.look.addEventListener('click', look);

const source = new EventSource(`${here}/events`);
source.onmessage = (event) => {
  const before = told;
  told = JSON.parse(event.data);
  state.textContent = told.ended ? 'The class has ended.' : 'Live';
  if (told.ended) source.close();
  if (mode !== 'follow') return;
  const answers = root.querySelector('.replay');
  if (answers?.goTo && told.picture === before?.picture && !told.ended) answers.goTo(told.token); // the same, further on
  else follow();
};
source.onerror = () => {
  if (told?.ended) return;
  state.textContent = source.readyState === EventSource.CLOSED ? 'The class has ended, or is full.' : 'Connecting …';
};

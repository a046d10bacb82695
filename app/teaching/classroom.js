// Class: a presenter's dialog with the audience's address, and what is shown, told to the server whenever it changes.
const dialog = document.createElement('dialog');
dialog.id = 'class-dialog';
dialog.className = 'teaching';
dialog.setAttribute('aria-labelledby', 'class-title');
dialog.innerHTML = `<h2 id="class-title">Class</h2>
<p class="about">Your audience opens this address and sees the picture that you are showing.
On that page they can look and nothing else.</p>
<img alt="The address as a QR code" hidden><p><a target="_blank" rel="noopener"></a></p><p class="reach"></p>
<p class="said" role="status"></p>
<div class="buttons"><button type="button" class="end" hidden>End the class</button>
<button type="button" class="start primary">Start a class</button>
<button type="button" class="close">Close</button></div>`;
const find = (query) => dialog.querySelector(query);
const SETTLE = 150; // milliseconds after the last change
let held = null; // {code, key} while there is a class
let screen = null; // what Present shows: {name, answers}, or null
let token = 0;
let due = null;
let opener = null;

const kept = () => {
  try { return JSON.parse(sessionStorage.getItem('hydralora-class')); } catch { return null; }
};
const keep = (value) => {
  held = value;
  try {
    if (value) sessionStorage.setItem('hydralora-class', JSON.stringify(value));
    else sessionStorage.removeItem('hydralora-class');
  } catch { /* a private window: a reload ends the class */ }
  mark();
};

const mark = () => {
  for (const button of document.querySelectorAll('[data-opens=class]'))
    button.setAttribute('aria-pressed', String(Boolean(held)));
};

const post = async (what, body) => {
  const answer = await fetch(`studio/classes/${what}`,
    {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)});
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error), {status: answer.status});
  return found;
};

// The answers of the newest turn of Chat, by column.
const NEWEST = '#conversation .turn:last-child .answer[data-ended]';
const newest = () => Object.fromEntries([...document.querySelectorAll(NEWEST)]
  .filter((answer) => answer.dataset.answer).map((answer) => [answer.dataset.key, answer.dataset.answer]));

const tell = () => {
  clearTimeout(due);
  if (!held) return;
  due = setTimeout(async () => {
    if (!held) return;
    const page = window.studio.page ?? '';
    const turn = screen ? (screen.answers ?? {}) : page === 'chat' ? newest() : {};
    const run = document.querySelector('#run-name select')?.value ?? '';
    try {
      const at = screen || Object.keys(turn).length ? token : 0;
      const {viewers} = await post('show', {...held, run, page, screen: screen?.name ?? '', turn, token: at});
      find('.said').textContent = `${viewers} viewer${viewers === 1 ? '' : 's'} now.`;
    } catch (error) {
      find('.said').textContent = error.message;
      if (error.status !== 404 || !error.message.includes('ended')) return;
      draw(null);
      window.studio.notice('The class has ended.');
    }
  }, SETTLE);
};

const draw = (found) => {
  keep(found && {code: found.code, key: found.key});
  find('img').hidden = !found;
  if (found) find('img').src = found.picture;
  else find('img').removeAttribute('src');
  const link = find('a');
  link.textContent = found?.address ?? '';
  link.href = found?.address ?? '';
  find('.reach').textContent = found?.reach ?? '';
  find('.end').hidden = !found;
  find('.start').hidden = Boolean(found);
};

const start = async () => {
  try {
    draw(await post('start', {}));
    find('.said').textContent = '';
    tell();
  } catch (error) {
    find('.said').textContent = error.message;
  }
};

const open = () => {
  opener = document.activeElement;
  document.body.classList.remove('steps-open');
  find('.said').textContent = '';
  if (!dialog.open) dialog.showModal();
  tell();
};

find('.start').addEventListener('click', start);
find('.close').addEventListener('click', () => dialog.close());
find('.end').addEventListener('click', async () => {
  if (held) await post('end', held).catch(() => {});
  draw(null);
  find('.said').textContent = 'The class has ended.';
});
dialog.addEventListener('close', () => {
  const back = [opener, ...document.querySelectorAll('[data-opens=class], #bar .menu')];
  back.find((node) => node?.offsetWidth && node !== document.body)?.focus();
});
document.body.append(dialog);
document.addEventListener('click', (event) => event.target.closest('[data-opens=class]') && open());
document.addEventListener('screen-shown', ({detail}) => {
  screen = detail;
  token = 0;
  tell();
});
document.addEventListener('run-shown', mark); // the bar is drawn later than this begins
for (const change of ['page-shown', 'answer-ended', 'run-shown']) document.addEventListener(change, tell);
document.addEventListener('place-shown', ({detail}) => { // of an answer that Present plays
  if (detail !== token) tell();
  token = detail;
});
document.addEventListener('token-shown', ({detail}) => {
  const now = detail?.isSelected && !detail.ofPrompt ? detail.place : 0;
  if (now !== token) tell();
  token = now;
});
// After a reload the class goes on, unless it has ended meanwhile.
const resume = async (before) => {
  const found = await post('start', before).catch(() => null);
  if (found?.code === before.code) return draw(found), tell();
  if (found) post('end', {code: found.code, key: found.key}).catch(() => {});
  draw(null);
};
if (kept()) resume(kept());

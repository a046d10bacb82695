// The conversation: turns, each with its answers side by side; an answer is its tokens. `element`, `props`, `watch` and
// `trigger` are handed in by gr.HTML. Tokens come as server-sent events (app/streams.py). Texts are set as textContent:
// never as HTML.
const colours = HEAD_COLOURS;
const names = COLUMN_NAMES;
const list = element.querySelector('.turns');
const live = element.querySelector('.live');
const TIE = 0.05; // above 1/N: below it no head leads
const answers = new Map(); // by id: {node, tokens, layers, heads, ended, source}
let steered = null; // the id of the newest steered answer
let chosen = null; // {id, place} of the selected token, or null: the newest
let linked = new URLSearchParams(location.search).get('token'); // to be selected in the newest answer, once it is there

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

// Which head leads a token, and by how much over 1/N; none in a tie.
const lead = (gates) => {
  if (!gates?.length) return {head: null, strength: 0};
  const top = Math.max(...gates);
  const over = top / 1000 - 1 / gates.length;
  if (over < TIE) return {head: null, strength: 0, tie: true};
  return {head: gates.indexOf(top), strength: Math.min(1, over / (1 - 1 / gates.length))};
};

const headName = (head) => {
  const component = window.studio.heads?.names?.[head];
  return `head ${head + 1}${component ? `, ${component}` : ''}`;
};

const tokenNode = (token, place) => {
  const node = make('span', 'token', token.text === '' ? '·' : token.text.replaceAll('\n', '⏎\n'));
  node.setAttribute('role', 'option');
  node.setAttribute('aria-selected', 'false');
  node.dataset.place = place;
  const {head, strength, tie} = lead(token.gates);
  if (tie) node.title = 'no head leads';
  if (head === null) return node;
  node.dataset.head = head;
  node.dataset.number = head + 1;
  node.style.setProperty('--head', colours[head % colours.length]);
  node.style.setProperty('--strength', `${Math.round(12 + 38 * strength)}%`);
  node.title = `${headName(head)}: gate ${(token.gates[head] / 1000).toFixed(2)}`;
  return node;
};

// The tokens of the second answer that are not in the longest common subsequence with the first.
const differing = (first, second) => {
  const rows = first.length, columns = second.length;
  if (rows * columns > 1e6) return [];
  const best = Array.from({length: rows + 1}, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--)
    for (let j = columns - 1; j >= 0; j--)
      best[i][j] = first[i].text === second[j].text ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const unlike = [];
  for (let i = 0, j = 0; j < columns; )
    if (i < rows && first[i].text === second[j].text) (i++, j++);
    else if (i < rows && best[i + 1][j] >= best[i][j + 1]) i++;
    else unlike.push(j++);
  return unlike;
};

const compare = (turn) => {
  const own = answers.get(turn.querySelector('[data-key=run]')?.dataset.answer);
  const steered = answers.get(turn.querySelector('[data-key=steered]')?.dataset.answer);
  if (!own?.ended || !steered?.ended) return;
  const unlike = new Set(differing(own.tokens, steered.tokens));
  [...steered.node.querySelector('.tokens').children].forEach((token, i) => token.classList.toggle('unlike', unlike.has(i)));
  steered.node.querySelector('.verdict').textContent =
    unlike.size || own.tokens.length !== steered.tokens.length ? 'Wavy underline: differs' : 'The same answer';
};

// What bars and heatmap show: the selected token, else the newest one of the steered answer, else of the first that has
// gates.
const show = () => {
  const gated = [...(list.lastElementChild?.querySelectorAll('.answer') ?? [])]
    .map((node) => answers.get(node.dataset.answer)).filter((candidate) => candidate?.tokens.at(-1)?.gates);
  const answer = answers.get(chosen?.id) ?? gated.find(({key}) => key === 'steered') ?? gated[0];
  const tokens = chosen?.prompt ? answer?.prompt : answer?.tokens;
  const place = chosen ? chosen.place : (tokens?.length ?? 0) - 1;
  const token = tokens?.[place];
  document.dispatchEvent(new CustomEvent('token-shown', {detail: token && {
    ...token, ...lead(token.gates), layers: answer.layers, place, count: tokens.length, isSelected: Boolean(chosen),
    ofPrompt: Boolean(chosen?.prompt), column: names[answer.key],
  }}));
};

const choose = (id, place, prompt = false) => {
  for (const node of list.querySelectorAll('[aria-selected=true]')) node.setAttribute('aria-selected', 'false');
  const same = chosen && chosen.id === id && chosen.place === place && chosen.prompt === prompt;
  chosen = same ? null : {id, place, prompt};
  if (chosen) {
    const node = answers.get(id).node.querySelector(prompt ? '.prompt-tokens' : '.tokens').children[place];
    node.setAttribute('aria-selected', 'true');
    node.scrollIntoView({block: 'nearest'});
    window.studio.link({token: prompt ? null : place});
  } else window.studio.link({token: null});
  show();
};

// A link such as ?token=12 selects that token of the newest answer.
const chooseLinked = (answer) => {
  if (linked === null || !list.lastElementChild?.contains(answer.node) || answer.key === 'base') return;
  const place = Number(linked);
  if (/^\d{1,6}$/.test(linked) && place < answer.tokens.length) choose(answer.node.dataset.answer, place);
  else if (!answer.ended) return;
  else {
    window.studio.link({token: null});
    window.studio.notice(`The link names token ${linked.slice(0, 20)}; the newest answer has the tokens 0 to ${answer.tokens.length - 1}.`);
  }
  linked = null;
};

const grow = (answer, update) => {
  Object.assign(answer, {layers: update.layers, heads: update.heads});
  const strip = answer.node.querySelector('.tokens');
  const fresh = document.createDocumentFragment();
  update.tokens.forEach((token, i) => {
    if (update.first + i < answer.tokens.length) return; // sent again after a lost connection
    fresh.append(tokenNode(token, answer.tokens.length));
    answer.tokens.push(token);
  });
  const follows = list.scrollTop + list.clientHeight >= list.scrollHeight - 60;
  strip.append(fresh);
  const fold = answer.node.querySelector('.fold');
  fold.hidden = !update.prompt;
  const inside = answer.node.closest('.turn').previousElementSibling ? ', with the turns before' : '';
  fold.textContent = `prompt, ${update.prompt} tokens${inside}`;
  const count = answer.tokens.length;
  const speed = update.seconds > 0.2 ? `, ${(count / update.seconds).toFixed(1)} tokens/s` : '';
  const state = answer.node.querySelector('.state');
  state.classList.toggle('waiting', !update.ended && !count);
  state.classList.toggle('problem', update.ended && Boolean(update.note) && !count);
  state.textContent = update.note || (count || update.ended ? `${count} token${count === 1 ? '' : 's'}${speed}` : 'Reading the question …');
  if (update.ended) {
    answer.ended = true;
    answer.node.dataset.ended = '';
    answer.source?.close();
    compare(answer.node.closest('.turn'));
    live.textContent = `${names[answer.key]}: ${answer.tokens.map((token) => token.text).join('')}`;
    document.dispatchEvent(new CustomEvent('answer-ended'));
  }
  if (follows) list.scrollTop = list.scrollHeight;
  chooseLinked(answer);
  show();
};

const listen = (id, answer) => {
  const source = new EventSource(`studio/answers/${id}?first=${answer.tokens.length}`);
  answer.source = source;
  source.onmessage = (event) => grow(answer, JSON.parse(event.data));
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    answer.ended = true;
    if (!answer.tokens.length) answer.node.querySelector('.tokens').textContent = answer.text;
    answer.node.querySelector('.state').textContent = 'Its gates are no longer kept. Ask again to see them.';
  };
};

const unfold = async (answer, id, fold) => {
  const place = answer.node.querySelector('.prompt-tokens');
  place.hidden = !place.hidden;
  fold.setAttribute('aria-expanded', String(!place.hidden));
  if (place.hidden || answer.prompt) return;
  const found = await fetch(`studio/answers/${id}/prompt`);
  if (!found.ok) return;
  answer.prompt = (await found.json()).tokens;
  place.replaceChildren(...answer.prompt.map(tokenNode));
};

const strip = (className, label) => {
  const node = make('div', className);
  node.setAttribute('role', 'listbox');
  node.setAttribute('aria-label', label);
  node.tabIndex = 0;
  return node;
};

const answerNode = (key, {id, title, text}) => {
  const node = make('section', 'answer');
  node.dataset.key = key;
  node.dataset.answer = id;
  const head = make('header');
  const name = make('strong', '', names[key]);
  name.title = title;
  const fold = make('button', 'fold', '');
  fold.type = 'button';
  fold.hidden = true;
  fold.setAttribute('aria-expanded', 'false');
  head.append(name, fold);
  const folded = strip('prompt-tokens', 'Tokens of the prompt');
  folded.hidden = true;
  const state = make('small', 'state waiting', 'Loading the model …');
  node.append(head, folded, strip('tokens', `Answer: ${names[key]}`), make('small', 'verdict'), state);
  if (!id) return node;
  const answer = {key, node, text, tokens: [], layers: [], heads: 0, ended: false};
  fold.addEventListener('click', () => unfold(answer, id, fold));
  answers.set(id, answer);
  listen(id, answer);
  return node;
};

// A turn's answers in the columns' order; those that are there already stay as they are.
const fillTurn = (node, turn, pending) => {
  node.querySelector('.question').textContent = turn.question;
  node.querySelector('.expected').textContent = turn.expected ? `expected: ${turn.expected}` : '';
  const place = node.querySelector('.answers');
  const wanted = Object.keys(names).filter((key) => turn.answers[key] || pending.includes(key));
  const known = Object.fromEntries([...place.children].map((child) => [child.dataset.key, child]));
  const nodes = wanted.map((key) => {
    const answer = turn.answers[key] ?? {id: '', title: '', text: ''};
    const old = known[key];
    return old && old.dataset.answer === answer.id ? old : answerNode(key, answer);
  });
  for (const old of place.children) if (!nodes.includes(old)) answers.get(old.dataset.answer)?.source?.close();
  place.style.setProperty('--columns', nodes.length);
  if (nodes.length !== place.children.length || nodes.some((child, i) => place.children[i] !== child)) place.replaceChildren(...nodes);
};

const turnNode = () => {
  const node = make('article', 'turn');
  const asked = make('div', 'asked');
  asked.append(make('p', 'question'), make('small', 'expected'));
  node.append(asked, make('div', 'answers'));
  return node;
};

const draw = () => {
  const {turns = [], pending = null} = props.value || {};
  if (pending) linked = null; // a person asks meanwhile
  const shown = pending ? [...turns, {question: pending.question, expected: pending.expected, answers: {}}] : turns;
  const count = list.children.length;
  // A new question or a steered answer shows its own gates, not those of a token that was selected before.
  const now = turns.at(-1)?.answers.steered?.id ?? null;
  if (chosen && (shown.length > count || (now && now !== steered))) choose(chosen.id, chosen.place, chosen.prompt);
  steered = now;
  while (list.children.length > shown.length) list.lastElementChild.remove();
  while (list.children.length < shown.length) list.append(turnNode());
  shown.forEach((turn, i) => {
    const waits = i === shown.length - 1 ? (pending?.columns ?? props.value?.loading ?? []) : [];
    fillTurn(list.children[i], turn, waits);
  });
  for (const node of list.querySelectorAll('[id]')) node.removeAttribute('id');
  for (const node of list.lastElementChild?.querySelectorAll('.answer') ?? []) node.id = `answer-${node.dataset.key}`;
  if (chosen && !list.querySelector(`[data-answer="${chosen.id}"]`)) chosen = null;
  if (list.children.length !== count) list.scrollTop = list.scrollHeight;
  element.classList.toggle('empty', !shown.length);
  show();
};

list.addEventListener('click', (event) => {
  const node = event.target.closest('.token');
  if (!node) return;
  choose(node.closest('.answer').dataset.answer, Number(node.dataset.place), Boolean(node.closest('.prompt-tokens')));
});
list.addEventListener('keydown', (event) => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const tokens = event.target.closest('[role=listbox]');
  if (!step || !tokens?.children.length) return;
  event.preventDefault();
  const id = tokens.closest('.answer').dataset.answer;
  const prompt = tokens.classList.contains('prompt-tokens');
  const from = chosen?.id === id && chosen.prompt === prompt ? chosen.place : step > 0 ? -1 : tokens.children.length;
  const next = Math.max(0, Math.min(tokens.children.length - 1, from + step));
  if (next !== chosen?.place || chosen.id !== id) choose(id, next, prompt);
});
document.addEventListener('heads-shown', show); // after a reload they may come later than the answers
// A stop goes straight to the answers: it must not wait in a queue behind them.
document.addEventListener('click', (event) => {
  if (!event.target.closest('#chat-stop')) return;
  for (const [id, answer] of answers) if (!answer.ended) fetch(`studio/answers/${id}/stop`, {method: 'POST'});
});
draw();
watch('value', draw);

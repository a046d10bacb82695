// Predict which head leads, then see the gates. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML. Texts
// are set as textContent: never as HTML.
const colours = HEAD_COLOURS;
const find = (name) => element.querySelector(`.${name}`);
const [note, card, count, asked, expected, guesses, result, onward, score] =
  ['note', 'card', 'count', 'asked', 'expected', 'guesses', 'result', 'onward', 'score'].map(find);
const NONE = -1;
let mode = 'ask'; // or "waiting", until the model has read the row, or "seen"

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const named = (head) => (head === null ? 'no head' : `head ${head + 1}`);

const choice = (head) => {
  const node = make('button', 'choice');
  node.type = 'button';
  node.dataset.head = head;
  if (head === NONE) node.append(make('span', 'component', 'No head leads'));
  else {
    node.style.setProperty('--head', colours[head % colours.length]);
    node.append(make('b', 'mark', head + 1), make('span', 'component', props.value.names[head] || `head ${head + 1}`));
    node.setAttribute('aria-label', `Head ${head + 1}${props.value.names[head] ? `, ${props.value.names[head]}` : ''}`);
  }
  node.append(make('span', 'gate'), make('span', 'track'));
  node.addEventListener('click', () => {
    if (mode !== 'ask') return;
    mode = 'waiting';
    for (const button of guesses.children) button.setAttribute('aria-pressed', String(button === node));
    result.textContent = 'The model reads the row …';
    trigger('guess', {head});
  });
  return node;
};

const showGates = ({guess, lead, gates}) => {
  for (const node of guesses.children) {
    const head = Number(node.dataset.head);
    const gate = gates[head];
    node.setAttribute('aria-pressed', String(head === (guess ?? NONE)));
    node.classList.toggle('leads', head === (lead ?? NONE));
    node.querySelector('.gate').textContent = gate === undefined ? '' : gate.toFixed(2);
    node.querySelector('.track').style.setProperty('--part', gate ?? 0);
    node.setAttribute('aria-disabled', 'true');
  }
  const top = Math.max(...gates).toFixed(2);
  const seen = lead === null ? `No head leads: the largest gate is ${top}.` : `Head ${lead + 1} leads, with a mean gate of ${top}.`;
  result.textContent = `${guess === lead ? '✓ Right.' : `✗ You said ${named(guess)}.`} ${seen}`;
};

const draw = () => {
  const {heads = 0, seen = null, next = null, right = [], total = 0, note: why = ''} = props.value || {};
  note.textContent = why;
  card.hidden = !total;
  score.hidden = !right.length;
  score.textContent = `${right.filter(Boolean).length} of ${right.length} right  ${right.map((is) => (is ? '✓' : '✗')).join(' ')}`;
  if (!total) return;
  const row = mode === 'seen' || !next ? seen : next;
  const place = right.length + (row === next ? 1 : 0);
  count.textContent = `Prompt ${place} of ${total}. Which head will lead while the model answers?`;
  asked.textContent = row.question;
  expected.textContent = `expected answer: ${row.expected}`;
  guesses.replaceChildren(...Array.from({length: heads}, (_, head) => choice(head)), choice(NONE));
  result.textContent = '';
  if (row !== next) showGates(seen);
  onward.hidden = row === next;
  onward.textContent = next ? 'Next prompt' : 'Again, with other prompts';
};

onward.addEventListener('click', () => {
  if (!props.value.next) return trigger('again', {});
  mode = 'ask';
  draw();
  guesses.firstElementChild.focus();
});

draw();
watch('value', () => {
  mode = mode === 'waiting' && props.value?.seen ? 'seen' : 'ask';
  draw();
  if (mode === 'seen') onward.focus();
});

// `element`, `props`, `watch` and `trigger` are handed in by gr.HTML. Texts are set as textContent: never as HTML.
const colours = HEAD_COLOURS;
const list = element.querySelector('.tokens');
const legend = element.querySelector('.legend');
let answer = null;
let selected = -1;

const colour = (head) => colours[head % colours.length];

const span = ([text, head, margin, read, unlike], index) => {
  const node = document.createElement('span');
  node.className = `token${read ? ' read' : ''}${unlike ? ' unlike' : ''}`;
  node.setAttribute('role', 'option');
  node.dataset.index = index;
  node.textContent = text === '' ? '·' : text.replaceAll('\n', '⏎\n');
  if (unlike) node.title = 'not the token that the router’s own gates gave; ';
  if (head === null) return node;
  node.dataset.head = head;
  node.style.setProperty('--head', colour(head));
  node.style.setProperty('--strength', `${Math.round(25 + 65 * margin)}%`);
  node.title += `head ${head + 1}, ahead by ${margin.toFixed(2)}`;
  const mark = document.createElement('sub');
  mark.textContent = head + 1;
  node.append(mark);
  return node;
};

// Only what changes is touched: an answer of thousands of tokens stays smooth.
const mark = (index, is) => list.children[index]?.setAttribute('aria-selected', String(is));

const select = (index) => {
  mark(selected, false);
  selected = index === selected ? -1 : index;
  mark(selected, true);
  document.dispatchEvent(new CustomEvent('token-picked', {detail: list}));
  trigger('pick', {index: selected});
};

// One token is looked at, of whichever answer.
document.addEventListener('token-picked', (event) => {
  if (event.detail === list) return;
  mark(selected, false);
  selected = -1;
});

const draw = () => {
  const value = props.value || {answer: '', tokens: [], heads: 0};
  if (value.answer !== answer || value.tokens.length < list.children.length) {
    answer = value.answer;
    selected = -1;
    list.replaceChildren();
    legend.replaceChildren();
  }
  if (value.tokens.length && !legend.children.length)
    legend.replaceChildren(...Array.from({length: value.heads}, (_, head) => {
      const item = document.createElement('span');
      item.style.setProperty('--head', colour(head));
      item.textContent = `head ${head + 1}`;
      return item;
    }));
  const fresh = document.createDocumentFragment();
  for (let i = list.children.length; i < value.tokens.length; i++) fresh.append(span(value.tokens[i], i));
  const follows = list.scrollTop + list.clientHeight >= list.scrollHeight - 40;
  list.append(fresh);
  if (follows) list.scrollTop = list.scrollHeight;
};

list.addEventListener('click', (event) => {
  const node = event.target.closest('.token');
  if (node) select(Number(node.dataset.index));
});
list.addEventListener('keydown', (event) => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const count = list.children.length;
  if (!step || !count) return;
  event.preventDefault();
  const next = selected < 0 ? (step > 0 ? 0 : count - 1) : Math.min(count - 1, Math.max(0, selected + step));
  if (next !== selected) select(next);
  list.children[next].scrollIntoView({block: 'nearest'});
});
draw();
watch('value', draw);

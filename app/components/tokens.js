// `element`, `props`, `watch` and `trigger` are handed in by gr.HTML. Texts are set as textContent: never as HTML.
const colours = HEAD_COLOURS;
const list = element.querySelector('.tokens');
const legend = element.querySelector('.legend');
let answer = null;
let selected = -1;

const colour = (head) => colours[head % colours.length];

const span = ([text, head, margin], index) => {
  const node = document.createElement('span');
  node.className = 'token';
  node.setAttribute('role', 'option');
  node.dataset.index = index;
  node.textContent = text === '' ? '·' : text.replaceAll('\n', '⏎\n');
  if (head === null) return node;
  node.dataset.head = head;
  node.style.setProperty('--head', colour(head));
  node.style.setProperty('--strength', `${Math.round(25 + 65 * margin)}%`);
  node.title = `head ${head + 1}, ahead by ${margin.toFixed(2)}`;
  const mark = document.createElement('sub');
  mark.textContent = head + 1;
  node.append(mark);
  return node;
};

const mark = () => {
  for (const node of list.children)
    node.setAttribute('aria-selected', String(Number(node.dataset.index) === selected));
};

const select = (index) => {
  selected = index === selected ? -1 : index;
  mark();
  trigger('pick', {index: selected});
};

const draw = () => {
  const value = props.value || {answer: '', tokens: [], heads: 0};
  if (value.answer !== answer) {
    answer = value.answer;
    selected = -1;
    list.replaceChildren();
    legend.replaceChildren(...Array.from({length: value.heads}, (_, head) => {
      const item = document.createElement('span');
      item.style.setProperty('--head', colour(head));
      item.textContent = `head ${head + 1}`;
      return item;
    }));
  }
  for (let i = list.children.length; i < value.tokens.length; i++) list.append(span(value.tokens[i], i));
  mark();
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
});
draw();
watch('value', draw);

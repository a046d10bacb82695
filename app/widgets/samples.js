// Answers before training and now. `element`, `props` and `watch` are handed in by gr.HTML. Texts are set as textContent:
// never as HTML.
const list = element.querySelector('.samples');
const COLUMNS = [['prompt', 'Held-out prompt'], ['expected', 'Expected answer'], ['before', 'Before'], ['now', 'Now']];

const cell = (role, text, name, label) => {
  const node = document.createElement('div');
  node.setAttribute('role', role);
  node.className = name;
  node.dataset.label = label;
  node.textContent = text;
  node.title = text;
  return node;
};

const line = (cells) => {
  const node = document.createElement('div');
  node.setAttribute('role', 'row');
  node.append(...cells);
  return node;
};

const answer = (row, [key, label]) => {
  const node = cell('cell', row[key] || '-', key, label);
  const judged = (key === 'before' || key === 'now') && row[key];
  if (judged && row[key].trim() === row.expected.trim()) {
    node.classList.add('right');
    node.append(Object.assign(document.createElement('b'), {textContent: ' ✓', title: 'as expected'}));
  }
  return node;
};

const draw = () => {
  const rows = props.value || [];
  const head = line(COLUMNS.map(([key, label]) => cell('columnheader', label, key, '')));
  list.replaceChildren(...(rows.length ? [head, ...rows.map((row) => line(COLUMNS.map((column) => answer(row, column))))] : []));
};

draw();
watch('value', draw);

// `element`, `props` and `watch` are handed in by gr.HTML. Texts are set as textContent: never as HTML.
const list = element.querySelector('.batch');

const token = ([text, learnt, special]) => {
  const node = document.createElement('span');
  node.textContent = text.replaceAll('\n', '⏎\n') || '·';
  if (learnt) node.classList.add('learnt');
  if (special) node.classList.add('special');
  node.title = (special ? 'special token, ' : '') + (learnt ? 'learnt' : 'read only');
  return node;
};

const line = ({row, tokens}) => {
  const node = document.createElement('div');
  node.setAttribute('role', 'listitem');
  const name = document.createElement('b');
  name.textContent = `row ${row}, ${tokens.length} tokens`;
  const text = document.createElement('p');
  text.append(...tokens.map(token));
  node.append(name, text);
  return node;
};

const SHOWN = 2; // rows; the others are folded

const rows = (lines) => {
  const node = document.createElement('div');
  node.setAttribute('role', 'list');
  node.setAttribute('aria-label', 'Rows of a batch');
  node.append(...lines);
  return node;
};

const note = (text) => {
  const node = document.createElement('p');
  node.textContent = text;
  return node;
};

const draw = () => {
  const lines = ((props.value || {}).rows || []).map(line);
  if (!lines.length) return list.replaceChildren(note(props.value?.note ?? ''));
  const rest = document.createElement('details');
  const summary = document.createElement('summary');
  summary.textContent = `The other ${lines.length - SHOWN} rows of this batch`;
  rest.append(summary, rows(lines.slice(SHOWN)));
  list.replaceChildren(rows(lines.slice(0, SHOWN)), ...(lines.length > SHOWN ? [rest] : []));
};

draw();
watch('value', draw);

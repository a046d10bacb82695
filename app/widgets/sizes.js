// Two adapters of equal size, by their parts. `element`, `props` and `watch` are handed in by gr.HTML.
const place = element.querySelector('.sizes');
const count = (value) => value.toLocaleString('en');
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

const line = (name, value, className = '') => {
  const row = make('tr', className);
  const head = make('th', '', name);
  head.scope = 'row';
  row.append(head, make('td', '', value));
  return row;
};

const adapter = ({name, parts, total, percent, weights, optimiser}, most) => {
  const node = make('section', 'adapter');
  const bar = make('div', 'stack');
  bar.style.setProperty('--whole', total / most);
  for (const [i, [part, value]] of parts.entries()) {
    const piece = make('span', `piece piece-${i}`, value / total > 0.12 ? part : '');
    piece.style.flexGrow = value;
    piece.title = `${part}: ${count(value)}`;
    bar.append(piece);
  }
  const table = make('table');
  table.append(...parts.map(([part, value]) => line(part, count(value))), line('parameters in all', count(total), 'total'),
    line('of the base model', `${percent.toPrecision(3)} %`), line('adapter on disk', weights), line('AdamW\u2019s state', optimiser));
  node.append(make('h3', '', name), bar, table);
  return node;
};

const draw = () => {
  const {adapters = [], base = ''} = props.value || {};
  const most = Math.max(...adapters.map(({total}) => total));
  place.replaceChildren(make('p', 'base', base), ...adapters.map((each) => adapter(each, most)));
};
draw();
watch('value', draw);

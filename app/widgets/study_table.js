// A study's arms. Each run is a dot that leads to it. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
// Texts are never HTML.
const head = element.querySelector('thead tr');
const body = element.querySelector('tbody');
const MARKS = {missing: '·', waiting: '○', running: '◐', finished: '●', failed: '✕', stopped: '■'};

const make = (tag, className = '', text = '') => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
};

const dot = ({name, state, run}) => {
  const node = make(run ? 'a' : 'span', `cell ${state}`, MARKS[state]);
  node.title = `${name}: ${state}`;
  if (!run) {
    node.setAttribute('role', 'img');
    node.setAttribute('aria-label', node.title);
    return node;
  }
  node.setAttribute('aria-label', node.title);
  node.dataset.run = run;
  node.href = `?page=runs&run=${encodeURIComponent(run)}`;
  node.addEventListener('click', (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    trigger('pick', {id: run});
    window.studio.go('runs');
  });
  return node;
};

const heading = (text) => {
  const cell = make('th', '', text);
  cell.scope = 'col';
  return cell;
};

const row = ({arm, tried, seeds, cells}, columns, tuned) => {
  const line = make('tr');
  const name = make('th', '', arm);
  name.scope = 'row';
  const runs = (dots, label) => {
    const cell = make('td', 'runs');
    cell.dataset.label = label;
    cell.append(...dots.map(dot));
    return cell;
  };
  line.append(name, ...(tuned ? [runs(tried, 'tried')] : []), runs(seeds, 'seeds'));
  line.append(...columns.map((column, i) => {
    const cell = make('td', '', cells[i] ?? '');
    cell.dataset.label = column;
    return cell;
  }));
  return line;
};

const draw = () => {
  if (!props.value) return body.replaceChildren();
  const {columns, tuned, rows} = props.value;
  const focused = body.contains(document.activeElement) && document.activeElement.dataset.run;
  head.replaceChildren(...['arm', ...(tuned ? ['tried'] : []), 'seeds', ...columns].map(heading));
  body.replaceChildren(...rows.map((each) => row(each, columns, tuned)));
  if (focused) body.querySelector(`[data-run="${focused}"]`)?.focus();
};
draw();
watch('value', draw);

// The studies that were begun in this workspace. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
// Texts are never HTML.
const section = element.querySelector('.begun');
const list = element.querySelector('ul');

const make = (tag, className = '', text = '') => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.textContent = text;
  return node;
};

const line = ({id, title, about, dot}) => {
  const item = make('li');
  const button = make('button', 'study-begun');
  button.type = 'button';
  button.dataset.study = id;
  const mark = make('span', `dot ${dot}`);
  mark.setAttribute('aria-hidden', 'true');
  button.append(mark, make('strong', '', title), make('span', 'about', about));
  button.addEventListener('click', () => trigger('open', {id}));
  item.append(button);
  return item;
};

const draw = () => {
  const studies = props.value || [];
  const focused = element.contains(document.activeElement) && document.activeElement.dataset.study;
  section.hidden = !studies.length;
  list.replaceChildren(...studies.map(line));
  if (focused) element.querySelector(`[data-study="${CSS.escape(focused)}"]`)?.focus();
};
draw();
watch('value', draw);

// The way through the studio, with the state of each step. `element`, `props` and `watch` are handed in by gr.HTML.
const lists = element.querySelectorAll('ol, ul');
const link = ({page, label, state}) => {
  const item = document.createElement('li');
  const anchor = document.createElement('a');
  const small = document.createElement('small');
  anchor.href = `?page=${page}`;
  anchor.dataset.page = page;
  anchor.textContent = label;
  small.textContent = state;
  anchor.append(small);
  item.append(anchor);
  return item;
};
const mark = () => {
  for (const anchor of element.querySelectorAll('a'))
    if (anchor.dataset.page === window.studio.page) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
};
const draw = () => {
  const steps = props.value || [];
  const focused = element.contains(document.activeElement) && document.activeElement.dataset.page;
  lists[0].replaceChildren(...steps.filter((step) => step.on_path).map(link));
  lists[1].replaceChildren(...steps.filter((step) => !step.on_path).map(link));
  mark();
  if (focused) element.querySelector(`a[data-page="${focused}"]`)?.focus();
};
element.addEventListener('click', (event) => {
  const anchor = event.target.closest('a');
  if (!anchor || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  window.studio.go(anchor.dataset.page);
});
// A narrow page shows the steps as a drawer: a tap beside it closes it, and does nothing else.
const isOpen = () => document.body.classList.contains('steps-open');
document.addEventListener('click', (event) => {
  if (!isOpen() || event.target.closest('#stepper, #bar .menu, dialog')) return;
  event.preventDefault();
  event.stopPropagation();
  document.body.classList.remove('steps-open');
}, true);
document.addEventListener('keydown', ({key}) => {
  if (key !== 'Escape' || !isOpen()) return;
  document.body.classList.remove('steps-open');
  document.querySelector('#bar .menu')?.focus();
});
document.addEventListener('page-shown', mark);
draw();
watch('value', draw);
window.studio.start((props.value || []).map(({page}) => page));

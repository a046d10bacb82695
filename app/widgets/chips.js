// Example prompts as chips; null while they are not known. `element`, `props`, `watch` and `trigger` are handed in by
// gr.HTML.
const place = element.querySelector('.chips');
const draw = () => {
  place.replaceChildren(...(props.value || []).map(({question, expected, task}, index) => {
    const chip = document.createElement('button');
    chip.type = 'button';
    chip.textContent = question.replace(/\s+/g, ' ');
    chip.title = `${question}\nexpected: ${expected}`;
    if (task) chip.dataset.task = task;
    chip.addEventListener('click', () => trigger('ask', {index}));
    return chip;
  }));
  if (props.value && !props.value.length) place.textContent = 'No examples: the rows that this run held out are gone.';
};
draw();
watch('value', draw);

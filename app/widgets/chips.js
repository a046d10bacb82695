// Example prompts as chips. `element`, `props`, `watch` and `trigger` are handed in by gr.HTML.
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
};
draw();
watch('value', draw);

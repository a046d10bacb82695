// Links to a study's report. The address says which study is open. `element`, `props` and `watch` are handed in by gr.HTML.
const place = element.querySelector('.study-files');
const draw = () => {
  const id = props.value || '';
  place.hidden = !id;
  for (const kind of ['html', 'csv']) place.querySelector(`.${kind}`).href = `studio/studies/${encodeURIComponent(id)}/report.${kind}`;
};
draw();
watch('value', draw);

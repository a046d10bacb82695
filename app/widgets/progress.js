// The bar of a run's progress. `element`, `props` and `watch` are handed in by gr.HTML.
const frame = element.querySelector('.run-progress');
const track = element.querySelector('[role=progressbar]');
const filled = element.querySelector('i');
const texts = element.querySelectorAll('span');

const draw = () => {
  const {fraction, place, share, left} = props.value || {};
  frame.hidden = fraction === undefined;
  if (frame.hidden) return;
  const percent = Math.floor(100 * fraction);
  filled.style.width = `${100 * fraction}%`;
  track.setAttribute('aria-valuenow', percent);
  track.setAttribute('aria-valuetext', [`${percent} %`, place, share, left].filter(Boolean).join(', '));
  [place, share, left].forEach((text, i) => { texts[i].textContent = text || ''; });
};

draw();
watch('value', draw);

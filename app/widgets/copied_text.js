// A text to copy. `element`, `props` and `watch` are handed in by gr.HTML. The text is set as textContent: never as HTML.
const text = element.querySelector('pre');
const button = element.querySelector('button');

const say = (words) => {
  button.textContent = words;
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
};

const draw = () => { text.textContent = props.value || ''; };

button.addEventListener('click', () => {
  const select = () => { // a page that isn't served from this machine or by https has no clipboard
    getSelection().selectAllChildren(text);
    say('Selected: Ctrl+C copies it');
  };
  if (!navigator.clipboard) return select();
  navigator.clipboard.writeText(text.textContent).then(() => say('Copied'), select);
});
draw();
watch('value', draw);

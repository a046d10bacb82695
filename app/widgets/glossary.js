// The meaning of a term, or of anything with data-meaning: shown while the pointer or the keyboard is on it, gone on Escape.
(() => {
  let tip = null;
  let owner = null;

  const hide = () => {
    if (!owner) return;
    owner.removeAttribute('aria-describedby');
    owner = null;
    tip.hidden = true;
  };

  const place = () => {
    const box = owner.getBoundingClientRect();
    const {offsetWidth: width, offsetHeight: height} = tip;
    const below = box.bottom + height + 8 < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
    tip.style.top = `${below ? box.bottom + 4 : box.top - height - 4}px`;
  };

  const show = (node) => {
    if (node === owner) return;
    hide();
    if (!tip) {
      tip = Object.assign(document.createElement('div'), {id: 'meaning'});
      tip.setAttribute('role', 'tooltip');
      document.body.append(tip);
    }
    owner = node;
    tip.textContent = node.dataset.meaning;
    tip.hidden = false;
    node.setAttribute('aria-describedby', tip.id);
    place();
  };

  const explained = (target) => target?.closest?.('[data-meaning]');
  const leave = ({target, relatedTarget}) => {
    if (explained(target) === owner && relatedTarget !== tip && explained(relatedTarget) !== owner) hide();
    else if (target === tip) hide();
  };
  for (const begin of ['mouseover', 'focusin'])
    document.addEventListener(begin, ({target}) => { if (explained(target)) show(explained(target)); });
  for (const end of ['mouseout', 'focusout']) document.addEventListener(end, leave);
  document.addEventListener('keydown', ({key}) => { if (key === 'Escape') hide(); });
  document.addEventListener('scroll', hide, true);
})();

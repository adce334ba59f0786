'use strict';
const {sections, base} = JSON.parse(document.getElementById('data').textContent);
const find = (selector, inside = document) => inside.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const grid = find('.grid'), dialog = find('dialog'), figures = [...dialog.querySelectorAll('figure')];
const choices = find('.choices'), order = find('.order select');
const hidden = new Set();  // names of methods, whatever the size
let section = sections[0];
let state = null;  // what is enlarged: {method, other, caption}, the first two by name

const paint = (image, method, caption) => {  // a picture, or one clip of an animated sheet, cut out by the image's box
  image.src = `data:image/webp;base64,${method.sheet ?? method.pictures[caption]}`;
  image.style.objectPosition = method.sheet ? `${100 * caption / Math.max(1, method.across - 1)}% 0` : '';
  return image;
};
const named = (name, inside = section) => inside.methods.find(method => method.name === name);
const visible = () => section.methods.filter(method => !hidden.has(method.name));
const columns = () => order.value === 'hardest' && section.hardest ? section.hardest : section.captions.map((_, index) => index);
const verdict = wrong => wrong.length ? `${wrong.length} wrong` : 'right';

function show() {  // the grid of the present section
  grid.replaceChildren(make('div', {className: 'label corner head'}));
  const root = document.documentElement.style;
  root.setProperty('--columns', section.captions.length);
  root.setProperty('--ratio', section.width / section.height);
  for (const caption of columns()) grid.append(make('div', {className: 'head', textContent: section.captions[caption]}));
  for (const method of visible()) {
    grid.append(make('div', {className: 'label'}, method.name, ...method.figures.map(text => make('small', {textContent: text}))));
    for (const caption of columns()) {
      const wrong = method.wrong?.[caption];
      const said = wrong ? verdict(wrong) : '';
      const tile = make('button', {className: 'tile', title: wrong?.join('\n') ?? ''},
        paint(make('img', {alt: '', loading: 'lazy'}), method, caption),
        make('span', {className: wrong ? (wrong.length ? 'bad' : 'good') : '', textContent: said}));
      tile.ariaLabel = `${method.name}: ${section.captions[caption]} ${said}`;
      tile.onclick = () => enlarge({method: method.name, other: compared(method.name), caption});
      grid.append(tile);
    }
  }
  const shown = visible().length;
  find('.filter summary').textContent = `Methods: ${shown === section.methods.length ? 'all' : `${shown} of ${section.methods.length}`}`;
  choices.replaceChildren(make('p', {}, ...[['all', false], ['none', true]].map(([text, hide]) => make('button', {
    textContent: text, onclick: () => { section.methods.forEach(method => hidden[hide ? 'add' : 'delete'](method.name)); show(); }}))),
    ...section.methods.map(method => make('label', {}, make('input', {type: 'checkbox', checked: !hidden.has(method.name),
      onchange: event => { hidden[event.target.checked ? 'delete' : 'add'](method.name); show(); }}), ` ${method.name}`)));
  find('.order').hidden = !section.hardest;
  switches();
}

function switches() {  // the buttons of sizes, above the grid and in the dialog
  for (const bar of document.querySelectorAll('.sizes')) {
    bar.replaceChildren(...sections.map(one => {
      const button = make('button', {textContent: one.title, title: one.about, onclick: () => turn(one)});
      button.setAttribute('aria-pressed', one === section);
      return button;
    }));
  }
}

// What stands beside a method: what did so before, else the base sample, else the last or the first method.
const compared = name => {
  const wanted = [state?.other, base, section.methods.at(-1).name, section.methods[0].name];
  return wanted.find(other => other && other !== name && named(other)) ?? name;
};

function turn(to) {  // to another size, with the same methods and caption where they are there
  section = to;
  show();
  if (!state) return void remember();
  const method = named(state.method) ? state.method : section.methods[0].name;
  enlarge({method, other: compared(method),
    caption: Math.min(state.caption, section.captions.length - 1)});
}

function enlarge(next) {
  state = next;
  const names = [state.method, state.other];
  figures.forEach((figure, side) => {
    const method = named(names[side]), wrong = method.wrong?.[state.caption];
    paint(find('img', figure), method, state.caption);
    find('img', figure).alt = `${method.name}: ${section.captions[state.caption]}`;
    find('select', figure).replaceChildren(...section.methods.map(one => make('option', {
      value: one.name, textContent: one.name === base ? `${one.name}: the base sample, enlarged` : one.name, selected: one === method})));
    const read = wrong ? [make('b', {className: wrong.length ? 'bad' : 'good', textContent: wrong.length ? 'read: ' : 'read as asked'}), wrong.join('; '), make('br')] : [];
    find('.said', figure).replaceChildren(...read, method.figures.join(', '));
  });
  find('.caption').textContent = section.captions[state.caption];
  find('.place').textContent = `${columns().indexOf(state.caption) + 1} / ${section.captions.length}`;
  dialog.classList.remove('near');
  if (!dialog.open) {
    dialog.showModal();
    dialog.focus();
  }
  remember();
}

function step(what, by) {
  const list = what === 'caption' ? columns() : visible().map(method => method.name);
  const place = list.indexOf(state[what]) + by;
  if (place >= 0 && place < list.length) enlarge({...state, [what]: list[place]});
}

function remember() {
  const parts = [section.id, ...(state ? [state.method, state.caption, state.other] : [])];
  history.replaceState(null, '', '#' + parts.map(encodeURIComponent).join('/'));
}

function recall() {  // opens what the address names
  const [id, method, caption, other] = location.hash.slice(1).split('/').map(decodeURIComponent);
  section = sections.find(one => one.id === id) ?? section;
  show();
  if (named(method) && section.captions[caption]) enlarge({method, caption: +caption, other: named(other) ? other : compared(method)});
}

figures.forEach((figure, side) => {
  find('select', figure).onchange = event => enlarge({...state, [side ? 'other' : 'method']: event.target.value});
  const frame = find('.frame', figure);
  const point = event => {
    const box = frame.getBoundingClientRect();
    dialog.style.setProperty('--x', `${100 * (event.clientX - box.left) / box.width}%`);
    dialog.style.setProperty('--y', `${100 * (event.clientY - box.top) / box.height}%`);
  };
  frame.onclick = event => { point(event); dialog.classList.toggle('near'); };
  frame.onpointermove = event => { if (dialog.classList.contains('near')) point(event); };
});
order.onchange = show;
find('.smooth input').onchange = event => dialog.classList.toggle('smoothed', event.target.checked);
find('.close').onclick = () => dialog.close();
dialog.onclose = () => { state = null; remember(); };
for (const button of dialog.querySelectorAll('[data-step]')) {
  button.onclick = () => { const [what, by] = button.dataset.step.split(' '); step(what, +by); };
}
dialog.addEventListener('keydown', event => {
  if (event.target.matches('select') || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowLeft: () => step('caption', -1), ArrowRight: () => step('caption', 1),
    ArrowUp: () => step('method', -1), ArrowDown: () => step('method', 1),
    s: () => turn(sections[(sections.indexOf(section) + 1) % sections.length]),
    x: () => enlarge({...state, method: state.other, other: state.method}),
  };
  const act = keys[event.key] ?? keys[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});
document.addEventListener('click', event => {
  if (!event.composedPath().includes(find('.filter'))) find('.filter').open = false;  // its boxes are made anew when clicked
});
window.addEventListener('hashchange', recall);
recall();

(function () {
  var frames = [].map.call(document.querySelectorAll('g.f'), function (g) {
    var rect = g.querySelector('rect'), title = g.querySelector('title').textContent;
    return {g: g, rect: rect, text: g.querySelector('text'), name: title.replace(/ \([^(]*\)$/, ''),
      x: +rect.getAttribute('x'), w: +rect.getAttribute('width'), y: +rect.getAttribute('y')};
  });
  var all = frames[0];
  function zoom(to) {
    frames.forEach(function (f) {
      var outside = f.y >= to.y && f.x <= to.x + 0.005 && f.x + f.w >= to.x + to.w - 0.005;
      var x = outside ? 0 : (f.x - to.x) * all.w / to.w, w = outside ? all.w : f.w * all.w / to.w;
      var there = outside || (f.y < to.y && f.x >= to.x - 0.005 && f.x + f.w <= to.x + to.w + 0.005);
      f.g.style.display = there ? '' : 'none';
      f.rect.setAttribute('x', x);
      f.rect.setAttribute('width', w);
      f.rect.style.opacity = outside && f !== to ? 0.5 : 1;
      f.text.setAttribute('x', x + 3);
      var letters = Math.floor((w - 6) / 7.3);
      f.text.textContent = letters < 3 ? '' : f.name.slice(0, letters);
    });
  }
  frames.forEach(function (f) { f.g.addEventListener('click', function () { zoom(f); }); });
})();

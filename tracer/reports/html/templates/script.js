"use strict";
(() => {
  const all = (from, what) => [...from.querySelectorAll(what)];
  const shown = one => one.getClientRects().length > 0;

  /* The drawing as it is shown, as a file of its own: its colours are the page's variables. */
  function drawn(figure) {
    const drawing = all(figure, "svg").find(shown);
    const style = getComputedStyle(drawing);
    const colour = text => text.replace(
      /var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    const copy = drawing.cloneNode(true);
    const { width, height } = drawing.viewBox.baseVal;
    const behind = document.createElementNS(copy.namespaceURI, "rect");
    const values = { width, height, fill: "var(--page)" };
    for (const [name, value] of Object.entries(values)) behind.setAttribute(name, value);
    copy.querySelector("desc").after(behind);
    for (const one of all(copy, "[fill], [stroke]")) {
      for (const name of ["fill", "stroke"]) {
        const value = one.getAttribute(name);
        if (value) one.setAttribute(name, colour(value));
      }
    }
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("font-family", style.fontFamily);
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  const forms = {
    svg(figure, name) {
      save(new Blob([drawn(figure).text], { type: "image/svg+xml" }), name);
    },
    png(figure, name) {
      const { text, width, height } = drawn(figure);
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas");
        const scale = 2000 / width;
        [canvas.width, canvas.height] = [2000, Math.round(height * scale)];
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob(blob => save(blob, name));
      };
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    },
  };

  for (const one of all(document, ".scripted")) one.hidden = false;
  document.addEventListener("click", ({ target }) => {
    const { form, fold } = target.dataset ?? {};
    if (form) {
      const figure = target.closest("figure");
      forms[form](figure, `${figure.id}.${form}`);
    }
    if (fold !== undefined) {
      for (const one of all(document, "details.strategy")) one.open = fold === "open";
    }
  });
})();

"""JavaScript that measures a page by the boxes of what is shown on it."""

_SHOWN = """
    const rendered = element => element.checkVisibility({contentVisibilityAuto: true})
        && element.getClientRects().length > 0;
    const clipped = element => {
        for (let at = element; at; at = at.parentElement)
            if (getComputedStyle(at).clipPath !== "none") return true;
        return false;
    };
    const lines = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode, holder = node.parentElement;
        if (!node.textContent.trim() || holder.closest("title, desc, script, style")) continue;
        if (!rendered(holder) || clipped(holder)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const box of range.getClientRects())
            if (box.width > 1) lines.push({text: node.textContent.trim(), holder, box});
    }
"""
"""``lines``: every line of every text that a reader sees, with its box."""
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
CUT_OFF = f"""(() => {{ {_SHOWN}
    const frames = "td, th, svg, figure, summary, button";
    return lines.filter(({{holder, box}}) => {{
        const frame = holder.closest(frames)?.getBoundingClientRect();
        const left = Math.max(0, frame?.left ?? 0);
        const right = Math.min(innerWidth, frame?.right ?? innerWidth);
        return box.left < left - 1 || box.right > right + 1
            || (holder.closest("svg") && (box.top < frame.top - 1
                || box.bottom > frame.bottom + 1));
    }}).map(one => one.text);
}})()"""
"""Texts that leave the window, their cell or their drawing."""
OVERLAPPING = f"""(() => {{ {_SHOWN}
    lines.sort((one, other) => one.box.top - other.box.top);
    const found = [];
    lines.forEach(({{text, box}}, index) => {{
        for (let next = index + 1; next < lines.length; next++) {{
            const other = lines[next];
            if (other.box.top > box.bottom - 5) break;
            const wide = Math.min(box.right, other.box.right)
                - Math.max(box.left, other.box.left);
            const high = Math.min(box.bottom, other.box.bottom) - other.box.top;
            if (wide > 1 && high > 5) found.push(`${{text}} / ${{other.text}}`);
        }}
    }});
    return found;
}})()"""
"""Pairs of texts of which one covers the other."""
CROSSED = """[...document.querySelectorAll("svg")].filter(
    drawing => drawing.getClientRects().length).flatMap(drawing => {
        const shapes = [...drawing.querySelectorAll("line, polyline, polygon, rect")];
        const at = (x, y) => Object.assign(drawing.createSVGPoint(), {x, y});
        const painted = (shape, point) => {
            const style = getComputedStyle(shape);
            return (shape.tagName !== "rect" && style.fill !== "none"
                    && shape.isPointInFill(point))
                || (style.stroke !== "none" && shape.isPointInStroke(point))
                || (shape.tagName === "rect" && style.stroke === "none"
                    && shape.isPointInFill(point));
        };
        return [...drawing.querySelectorAll("text")].filter(text => {
            const {x, y, width, height} = text.getBBox();
            // A font's box has room above and below its letters.
            const points = [0.3, 0.5, 0.7].flatMap(down => [...Array(25)].map(
                (_, step) => at(x + width * step / 24, y + height * down)));
            return shapes.some(shape => points.some(point => painted(shape, point)));
        }).map(text => text.textContent);
    })"""
"""Labels in drawings that a line, an arrow or a bar goes through."""
SMALLEST = """Math.min(...[...document.querySelectorAll("svg text")].filter(
    text => text.getClientRects().length).map(
    text => text.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize)))"""
"""The smallest text of a drawing, in pixels."""
CONTRAST = """(() => {
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = parse(colour).slice(0, 3).map(value => {
            value /= 255;
            return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((parse(colour)[3] ?? 1) > 0) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const boxes = getComputedStyle(document.documentElement).getPropertyValue("--box");
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const words = [...element.childNodes].some(
            node => node.nodeType === 3 && node.textContent.trim());
        if (!words || !element.getClientRects().length) continue;
        if (element.closest("title, desc, style")) continue;
        const style = getComputedStyle(element);
        const drawn = element instanceof SVGElement;
        const ink = light(drawn ? style.fill : style.color), page = light(behind(element));
        found.push({text: element.textContent.trim().slice(0, 40), drawn,
            ratio: (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05)});
    }
    return {page: light(behind(document.body)), found};
})()"""
"""By the formula of WCAG 2, of every text that is shown."""

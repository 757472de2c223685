"""Long labels in a real browser, where there is one: they hide no figure, and a printed page is as wide as paper."""

import html

import pytest

from minidisc.report import write_report
from tests.unit.report.test_report import make
from tests.unit.report.test_slider import BROWSER, found_by_browser

PAPER = 718  # pixels of A4 between its margins
MEASURE = """<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    const right = (element) => Math.round(element.getBoundingClientRect().right);
    const table = page.querySelector("#confusion-teacher, #confusions");
    return {
      page: page.documentElement.scrollWidth,
      shown: right(table.closest(".scroll") || page.body),
      figure: right(table.querySelector("data")),
      examples: page.querySelector("#examples").offsetWidth,
    };
  });
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>"""


def contrast(labels):
    counts = [[10 * i + j for j in range(len(labels))] for i in range(len(labels))]
    example = {"text": "a text " * 20, "label": labels[0], "teacher": labels[0], "student": labels[-1]}
    return {"rows": 9, "differ": 9, "labels": labels, "teacher": counts, "student": counts, "examples": [example]}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the path")
def test_long_labels_hide_nothing(tmp_path, no_plots):
    frames, widths = [], []
    for length, number in ((24, 3), (200, 3), (200, 13)):
        labels = [chr(ord("a") + i) * length for i in range(number)]
        page = tmp_path / "report.html"
        write_report(page, {**make(schedule="direct"), "contrast": contrast(labels)})
        text = page.read_text(encoding="utf-8")
        for width, shown in ((1200, text), (390, text), (PAPER, text.replace("@media print", "@media all"))):
            style = f"width: {width}px; height: 9000px; border: 0"
            frames.append(f'<iframe style="{style}" srcdoc="{html.escape(shown)}"></iframe>')
            widths.append(width)
    page = tmp_path / "frames.html"
    page.write_text(f"<!DOCTYPE html><html><body>{''.join(frames)}{MEASURE}</body></html>", encoding="utf-8")
    found = found_by_browser(page)
    assert len(found) == len(widths)
    for width, figures in zip(widths, found, strict=True):
        assert figures["page"] <= width, figures
        # The first figure stands beside its label, not behind the edge of what can be seen.
        assert figures["figure"] <= figures["shown"], figures
        assert figures["examples"] <= max(width, 600), figures

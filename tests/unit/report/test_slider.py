"""The slider of λ in a real browser, where there is one: what it chooses is what the closed form says."""

import html
import json
import re
import shutil
import subprocess

import pytest

from minidisc.report import write_report
from minidisc.selection import lambda_sweeps, range_of, tables_of
from tests.unit.report.test_report import CASES, make

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
LAMBDAS = (0, 0.005, 0.1, 0.15, 0.2, 0.35, 0.7, 0.705, 1)
# Moves every slider as a user's hand does, and writes down what the page then shows.
MOVE = """<script>
const found = [];
for (const slider of document.querySelectorAll("input[data-table]")) {
  const first = [...document.querySelectorAll("#" + slider.dataset.table + " tr.chosen data")].map((d) => d.value);
  for (const lambda of LAMBDAS) {
    slider.value = lambda;
    slider.dispatchEvent(new Event("input"));
    const rows = [...document.querySelectorAll("#" + slider.dataset.table + " tbody tr")];
    found.push({
      table: slider.dataset.table,
      lambda: lambda,
      visible: slider.offsetParent !== null,
      first: first[0],
      chosen: rows.filter((r) => r.classList.contains("chosen")).map((r) => +r.querySelector("data").value),
      tradeoffs: rows.map((r) => [+r.querySelector(".tradeoff data").value, r.querySelector(".tradeoff").innerText]),
      text: slider.closest("p").querySelector("output").innerText,
    });
  }
}
const out = document.createElement("pre");
out.id = "found";
out.textContent = JSON.stringify(found);
document.body.append(out);
</script>""".replace("LAMBDAS", json.dumps(LAMBDAS))


def found_by_browser(page):
    """What a script in the page has written into its element ``found``."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom")
    dom = subprocess.run([BROWSER, *flags, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)[1]))


def ties():
    """Metrics at which t_λ of several sizes are equal, but not in floating point."""
    results = make()
    for row, metric in zip(results["candidates"], (0.92, 0.91, 0.88, 0.87, 0.80), strict=True):
        row["metric"] = row["metrics"]["metric"] = row["metrics"]["accuracy"] = metric
    return results


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the path")
@pytest.mark.parametrize(
    "results", [ties(), CASES["two assistants"], CASES["regression"]], ids=["ties", "two", "minus"]
)
def test_it_chooses_what_the_closed_form_chooses(tmp_path, results):
    page = tmp_path / "report.html"
    write_report(page, results)
    page.write_text(page.read_text().replace("</body>", MOVE + "</body>"))
    found = found_by_browser(page)
    tables, sweeps = tables_of(results["candidates"]), lambda_sweeps(results["candidates"])
    pairs = enumerate(zip(tables, sweeps, strict=True), start=1)
    expected = {f"candidates-{number}-table": pair for number, pair in pairs}
    assert len(found) == sum(len(table) > 1 for table in tables) * len(LAMBDAS)
    for entry in found:
        table, sweep = expected[entry["table"]]
        chosen = range_of(sweep, entry["lambda"]).sparsity
        assert entry["visible"]
        assert float(entry["first"]) == next(row["sparsity"] for row in table if row["chosen"])
        assert entry["chosen"] == [chosen]
        assert entry["text"].startswith(f"λ = {entry['lambda']:g}: {100 * chosen:g} %")
        assert ("no assistant" in entry["text"]) == (chosen == 0.9)
        for row, (value, shown) in zip(table, entry["tradeoffs"], strict=True):
            assert value == pytest.approx(row["metric"] + entry["lambda"] * row["sparsity"])
            assert float(shown.replace("−", "-")) == pytest.approx(value, abs=5.1e-5)


def test_without_scripts_the_slider_is_not_there(tmp_path):
    write_report(tmp_path / "report.html", CASES["one assistant"])
    text = (tmp_path / "report.html").read_text()
    assert text.count('<p class="slider" hidden>') == 1

"use strict";
// The slider of λ beside a table of candidates: what another λ would have chosen, without training anything.
// As minidisc.selection.largest: of equal t_λ, to nine decimals, the sparsest.
function choose(candidates, lambda) {
  const nano = (c) => Math.round((c.metric + lambda * c.sparsity) * 1e9);
  return candidates.reduce((best, c) =>
    nano(c) > nano(best) || (nano(c) === nano(best) && c.sparsity > best.sparsity) ? c : best);
}

function attach(slider) {
  const rows = [...document.querySelectorAll("#" + slider.dataset.table + " tbody tr")];
  const candidates = rows.map((row) => {
    const given = row.querySelector("th").dataset;
    return { metric: +given.metric, sparsity: +given.sparsity, row: row };
  });
  const said = slider.closest("p").querySelector("output");
  slider.addEventListener("input", () => {
    const lambda = +slider.value;
    const best = choose(candidates, lambda);
    for (const c of candidates) {
      const cell = c.row.querySelector(".tradeoff data");
      const tradeoff = c.metric + lambda * c.sparsity;
      cell.value = tradeoff;
      cell.textContent = tradeoff.toFixed(4).replace("-", "−");
      c.row.classList.toggle("chosen", c === best);
    }
    const size = +(100 * best.sparsity).toPrecision(6) + " %";
    said.textContent = "λ = " + lambda + ": " + size +
      (size === slider.dataset.student ? ", the student’s own size, so no assistant" : "");
  });
  slider.closest("p").hidden = false;
}

document.querySelectorAll("input[data-table]").forEach(attach);

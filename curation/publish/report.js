"use strict";
(function () {
  const cards = Array.from(document.querySelectorAll(".pair"));
  const status = document.getElementById("by-status");
  const rule = document.getElementById("by-rule");
  const words = document.getElementById("by-text");
  const count = document.getElementById("shown");
  const none = document.getElementById("nothing");
  if (!status) return;
  function apply() {
    const needle = words.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits =
        (!status.value || card.dataset.status === status.value) &&
        (!rule.value || card.dataset.rule === rule.value) &&
        (!needle || card.textContent.toLowerCase().includes(needle));
      card.hidden = !fits;
      if (fits) shown += 1;
    }
    count.textContent = shown + " of " + cards.length;
    none.hidden = shown > 0;
  }
  status.addEventListener("change", function () {
    if (status.value === "kept") rule.value = "";
    rule.disabled = status.value === "kept";
    apply();
  });
  rule.addEventListener("change", apply);
  words.addEventListener("input", apply);
  apply();
})();

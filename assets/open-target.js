// A link to an equation inside a folded <details> unfolds it: not every browser does that by itself.
// On paper nothing can be unfolded: derivations and solutions are printed open, and closed again. Code that only draws
// stays folded, and book.css leaves it out.
(() => {
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    let fold = target?.closest("details:not([open])");
    if (!fold) return;
    for (; fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target.scrollIntoView();
  };
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".bd-article details:not([open])")]
      .filter((details) => !details.closest(".tag_hide-input"));
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
  addEventListener("hashchange", unfold);
  addEventListener("DOMContentLoaded", unfold);
})();

document.addEventListener("keydown", function (event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  var typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  var found = document.querySelector('[data-key="' + CSS.escape(event.key) + '"]');
  if (!found) return;
  event.preventDefault();
  if (found.tagName === "TEXTAREA") found.focus();
  else found.click();
});

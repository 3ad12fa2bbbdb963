"use strict";
// Makes labelling faster: keys, one save per clip, the time it took. Every page does its work without this file, too.

(() => {
  const form = document.getElementById("answer");
  if (!form) return;
  const player = document.getElementById("player");
  const keys = document.getElementById("keys");
  const undo = document.getElementById("undo");
  const stage = document.getElementById("stage");
  const shownAt = performance.now();
  let isSaving = false;

  for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;

  function play() {
    if (player) player.play().catch(() => {}); // a browser may want a key or a click first
  }

  function replay() {
    if (!player) return;
    player.currentTime = 0;
    play();
  }

  function toggle() {
    if (!player) return;
    if (player.paused || player.ended) play();
    else player.pause();
  }

  function choose(name, find) {
    const input = [...form.querySelectorAll(`input[name="${name}"]`)].find(find);
    if (!input) return false;
    input.checked = true;
    input.focus();
    return true;
  }

  function chooseLabel(value) {
    const isThere = choose("label", (input) => input.value === value);
    if (isThere && value === "invalid") document.getElementById("reason").focus();
    return isThere;
  }

  function onDigit(digit, isStrong) {
    const isThere = choose("label", (input) => input.dataset.key === digit);
    if (isThere && isStrong) choose("intensity", (input) => input.dataset.key === "s");
    return isThere;
  }

  function onKey(event) {
    const target = event.target;
    const isTyping = target.matches("input[type=text], select, textarea");
    if (event.key === "Escape" && isTyping) {
      target.blur();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping) return;
    const isButton = target.matches("button, a, summary, audio, video");
    const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
    const key = event.key.toLowerCase();
    let isDone = true;
    if (digit) isDone = onDigit(digit[1], event.shiftKey && event.code.startsWith("Digit"));
    else if (key === "w" || key === "s") isDone = choose("intensity", (input) => input.dataset.key === key);
    else if (key === "c") isDone = chooseLabel("compound");
    else if (key === "i") isDone = chooseLabel("invalid");
    else if (key === "r") replay();
    else if (key === "u" && undo) undo.requestSubmit();
    else if (key === "?" && keys) keys.open = !keys.open;
    else if (key === " " && !isButton) toggle();
    else if (key === "enter" && !isButton) { if (!event.repeat) form.requestSubmit(); }
    else isDone = false;
    if (isDone) event.preventDefault();
  }

  form.addEventListener("submit", (event) => {
    if (isSaving) {
      event.preventDefault();
      return;
    }
    isSaving = true;
    form.elements.seconds.value = ((performance.now() - shownAt) / 1000).toFixed(3);
    form.querySelector("button.primary").textContent = "Saving …";
  });
  // a page that the browser kept, and shows again
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });
  document.addEventListener("keydown", onKey);
  if (player) {
    document.getElementById("replay").addEventListener("click", replay);
    document.getElementById("toggle").addEventListener("click", toggle);
    for (const name of ["play", "pause", "ended"]) {
      player.addEventListener(name, () => stage.classList.toggle("playing", !player.paused && !player.ended));
    }
    player.addEventListener("error", () => { document.getElementById("broken").hidden = false; });
    play();
  }
})();

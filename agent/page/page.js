"use strict";
// The page is whole without this: it adds buttons that copy, and unfolds what is folded while it is printed.
const copyText = async (pre) => {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    // No permission, or no secure context: select it, so that the reader's own keys copy it.
    const selection = getSelection();
    selection.selectAllChildren(pre);
    return document.execCommand("copy");
  }
};
for (const box of document.querySelectorAll(".copyable")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(box.querySelector("pre"))) ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  box.append(button);
}
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open]):not(.later)")];
  for (const details of unfolded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of unfolded) details.open = false;
});

// Says on the page whether the SDK is there, and draws its form. Runs after the SDK, or after it was refused.
"use strict";

const line = document.getElementById("status");

function tell(state, text) {
  line.dataset.state = state;
  line.textContent = text;
}

if (typeof MolamCheckout === "undefined") {
  tell("failed", "The SDK was not loaded. The browser's console says why: a file that was changed is refused.");
} else {
  try {
    const { publicKey } = document.getElementById("checkout").dataset;
    new MolamCheckout({ publicKey }).mount("#checkout");
    tell("loaded", `The SDK ${document.getElementById("version").textContent} is loaded.`);
  } catch (error) {
    tell("failed", `The SDK is loaded, and says: ${error.message}`);
  }
}

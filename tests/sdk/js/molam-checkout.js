/*
 * A STAND-IN, not Molam's SDK: it has the same shape, for tests and demos. It takes no payment and calls nobody.
 */
(function (root) {
  "use strict";

  class MolamCheckout {
    /** @param {{publicKey: string}} options */
    constructor({ publicKey } = {}) {
      if (/^sk_/.test(publicKey)) {
        throw new Error("A secret key was given to a page, where everybody reads it. Revoke it, and use the public key.");
      }
      if (!/^pk_(test|live)_\w+$/.test(publicKey)) {
        throw new Error("publicKey has to be a public key, pk_test_… or pk_live_….");
      }
      this.publicKey = publicKey;
    }

    /** Draw the box that stands where the real SDK has its form. */
    mount(selector) {
      const place = document.querySelector(selector);
      if (!place) {
        throw new Error(`There is no element ${selector}.`);
      }
      const box = document.createElement("div");
      box.className = "molam-checkout";
      box.dataset.standIn = "true";
      const title = document.createElement("strong");
      title.textContent = "Stand-in for Molam's checkout";
      const text = document.createElement("p");
      text.textContent = `No payment can be made here. Public key: ${this.publicKey}`;
      box.append(title, text);
      place.replaceChildren(box);
    }
  }

  MolamCheckout.standIn = true;

  if (typeof module === "object" && module.exports) {
    module.exports = MolamCheckout;
  } else {
    root.MolamCheckout = MolamCheckout;
  }
})(globalThis);

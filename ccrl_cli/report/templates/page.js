(function () {
  "use strict";
  var root = document.documentElement;
  var button = document.getElementById("theme");
  var order = ["auto", "light", "dark"];
  var shown = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" };
  var said = { auto: "as the system", light: "light", dark: "dark" };

  function read() {
    try {
      return localStorage.getItem("ccrl-theme") || "auto";
    } catch (error) {
      return "auto";
    }
  }

  function apply(theme) {
    if (order.indexOf(theme) < 0) theme = "auto";
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    button.textContent = shown[theme];
    button.setAttribute("aria-label", "Colours: " + said[theme]);
    return theme;
  }

  var theme = apply(read());
  button.addEventListener("click", function () {
    theme = apply(order[(order.indexOf(theme) + 1) % order.length]);
    try {
      localStorage.setItem("ccrl-theme", theme);
    } catch (error) {
      /* The choice then lasts as long as the page. */
    }
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (item) {
      item.open = true;
    });
  });
})();

// Runs before the first paint: sets the stored theme, or the system's. A module would come too late.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("trainvitals-theme") || "system";
    } catch {
      return "system";
    }
  };
  const apply = () => {
    const choice = stored();
    document.documentElement.dataset.theme =
      choice === "system" ? (dark.matches ? "dark" : "light") : choice;
    document.documentElement.dataset.choice = choice;
  };
  dark.addEventListener("change", () => {
    apply();
    dispatchEvent(new Event("themechange"));
  });
  apply();
})();

"""A headless Chromium, used as people use a browser: by what is written on the page."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromedriver")
TIMEOUT_SECONDS = 240.0


def wait(look: Callable[[], Any], what: str, seconds: float = TIMEOUT_SECONDS) -> Any:
    """The first true answer of ``look``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Page:
    """The browser's one page, used as people do: by what is written on it."""

    def __init__(self, driver: Any, screenshots: Sequence[Path]) -> None:
        self.driver, self._screenshots = driver, screenshots

    def open(self, url: str) -> None:
        self.leave()  # else a new fragment would not load the page again
        self.driver.get(url)

    def leave(self) -> None:
        """Show nothing: without a GPU, Prefect's moving pages take half a core to draw, which the
        run that a test waits for had better have."""
        self.driver.get("about:blank")

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def see(self, *texts: str, seconds: float = TIMEOUT_SECONDS) -> str:
        """Wait until all ``texts`` are on the page; returns the page's text."""
        for text in texts:
            wait(lambda text=text: text in self.text(), f"{text!r} on the page", seconds)
        return self.text()

    def all(self, xpath: str) -> list[Any]:
        """What is displayed of an XPath; nothing where the page changes at this moment."""
        from selenium.common.exceptions import StaleElementReferenceException

        with contextlib.suppress(StaleElementReferenceException):
            found = self.driver.find_elements("xpath", xpath)
            return [item for item in found if item.is_displayed()]
        return []

    def find(self, xpath: str) -> Any:
        """The last one displayed."""
        return wait(lambda: self.all(xpath), xpath)[-1]

    def click(self, xpath: str) -> None:
        from selenium.common.exceptions import WebDriverException

        def clicked() -> bool:
            with contextlib.suppress(WebDriverException):  # replaced or covered for a moment
                self.find(xpath).click()
                return True
            return False

        wait(clicked, f"a click on {xpath}")

    def field(self, title: str, heading: str = "") -> Any:
        """The input under a title, the first one after ``heading`` where titles recur."""
        label = f"//label[normalize-space()='{title} (Optional)']"
        after = f"//label[normalize-space()='{heading} (Optional)']/following::" if heading else ""
        xpath = after + label.removeprefix("//") if heading else label
        found = wait(lambda: self.driver.find_elements("xpath", xpath), f"the field {title!r}")[0]
        return self.driver.find_element("id", found.get_attribute("for"))

    def type(self, element: Any, text: str) -> None:
        from selenium.webdriver import Keys

        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(text)

    def choose(self, element: Any, option: str) -> None:
        """Open a select with the keyboard and take one of its options."""
        element.send_keys("\n")
        self.click(f"//*[@role='option'][normalize-space()='{option}']")
        wait(lambda: not self.all("//*[@role='option']"), "the end of the list of options")

    def shot(self, name: str) -> None:
        for folder in self._screenshots:
            self.driver.save_screenshot(str(folder / f"{name}.png"))


@contextlib.contextmanager
def browser(profile: Path, screenshots: Sequence[Path]) -> Iterator[Page]:
    """Chromium with its profile in the folder ``profile``; screenshots go into all of
    ``screenshots``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    flags = (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "window-size=1400,1300",
        f"user-data-dir={profile}",
    )  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield Page(driver, screenshots)
    finally:
        driver.quit()

"""Lines around a text: which go and which look alike and stay."""

import polars as pl
import pytest

from stages.clean.notices import (
    COOKIES,
    HINTS,
    JAVASCRIPT,
    NEWSLETTER,
    RIGHTS,
    remove_notices,
    without_notices,
)

NOTICES = [
    "This website uses cookies to improve your experience.",
    "We use cookies to personalise content. Accept all cookies",
    "Diese Website verwendet Cookies.",
    "Nous utilisons des cookies pour vous offrir le meilleur service.",
    "Este sitio web utiliza cookies propias y de terceros.",
    "Questo sito utilizza i cookie.",
    "Мы используем файлы cookie.",
    "本网站使用 Cookie 以改善体验。",
    "当サイトでは、Cookieを使用しています。",
    "© 2024 Example Ltd. All Rights Reserved.",
    "Alle Rechte vorbehalten.",
    "Tous droits réservés",
    "Все права защищены.",
    "版权所有 © 2020 某某公司",
    "無断転載を禁じます",
    "You need to enable JavaScript to run this app.",
    "Please enable JavaScript in your browser.",
    "JavaScript must be enabled to use this page.",
    "请启用JavaScript",
    "Subscribe to our weekly newsletter!",
    "Jetzt Newsletter abonnieren",
    "Подпишитесь на нашу рассылку",
    "订阅我们的频道",
    "Share on Facebook",
    "Share this article on Twitter",
    "Tweet this",
    "Facebook | Twitter | LinkedIn",
    "Follow us on Instagram and YouTube!",
    "分享到微信",
    "Facebookでシェアする",
    "Privacy Policy | Terms of Use | Contact us",
]
PROSE = [
    "A cookie is a small piece of data that a server sends to a browser.",
    "The server sets two cookies and the site reads them again.",
    "JavaScript is a language; enable strict mode with a directive.",
    "All seats in the first row were reserved for the family.",
    "They share a flat on the third floor.",
    "Like this:",
    "Post:",
    "Twitter was founded in 2006.",
    "He cancelled the newsletter because nobody read it.",
    "The privacy policy of 1998 was the first of its kind.",
    "Der Angeklagte behielt sich alle Rechte vor.",
    "这个网站的数据结构使用链表。",
    "",
]


@pytest.mark.parametrize("notice", NOTICES)
def test_a_notice_goes_and_its_neighbours_stay(notice):
    text = f"Before.\n{notice}\n\nAfter."
    assert remove_notices(pl.Series([text])).to_list() == ["Before.\n\nAfter."]


@pytest.mark.parametrize("line", PROSE)
def test_prose_that_mentions_such_things_stays(line):
    text = f"Before.\n{line}\nAfter."
    assert without_notices(text) == text


def test_a_long_line_stays():
    line = "The plaintiff held that all rights reserved to him by the contract " * 4
    assert without_notices(line) == line


def test_a_column_is_cleaned_text_by_text():
    texts = pl.Series("text", [*NOTICES, *PROSE, "a\nTweet this"])
    cleaned = remove_notices(texts)
    assert cleaned.to_list() == [without_notices(text) for text in texts]
    assert cleaned.to_list() == [*[""] * len(NOTICES), *PROSE, "a"]
    plain = pl.Series(["Nothing here."])
    assert remove_notices(plain) is plain


def test_a_book_loses_the_licence_around_it():
    book = (
        "The Project Gutenberg eBook of Emma\n\nThis eBook is for the use of anyone anywhere.\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nCHAPTER I\n\nEmma Woodhouse.\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nUpdated editions will replace it.\n"
    )
    assert remove_notices(pl.Series([book])).to_list() == ["CHAPTER I\n\nEmma Woodhouse."]
    half = book.replace("*** END", "END")
    assert without_notices(half) == half
    article = "Project Gutenberg was begun by Michael Hart in 1971.\nIt has 60,000 books."
    assert without_notices(article) == article


def test_every_phrase_holds_a_hint():
    """Else the quick search would hide its lines."""
    for phrase in (*COOKIES, *RIGHTS, *JAVASCRIPT, *NEWSLETTER):
        bare = phrase.replace("(?:sono )?", "").replace("[oa]", "")
        assert any(hint in bare for hint in HINTS), phrase

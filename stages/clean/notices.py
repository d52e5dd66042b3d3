"""Lines that a page puts around a text: cookie banners, rights, share buttons, licence headers.

C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2) drops every line with the word "javascript"
and every page with a policy notice. Here a line goes only if it is short and says nothing else, so
that an article about cookies or JavaScript stays.
"""

import re

import polars as pl

from stages.clean.repair import replaced

MAX_LINE_CHARACTERS = 250
"""Longer lines are prose that mentions such a thing."""

NETWORKS = (
    r"(?:facebook|twitter|linkedin|pinterest|whats ?app|reddit|telegram|tumblr|instagram|youtube"
    r"|e-?mail|print|微信|微博|qq空间|line|вконтакте)"
)
AND = r"\s*(?:[,|/·•&]|and|und|et|y|e|\s)\s*"

COOKIES = (
    r"(?:this|our) (?:web ?)?site (?:and its partners )?uses? (?:\w+ )?cookies",
    r"we (?:and our partners )?use (?:\w+ )?cookies (?:to|on|and|for)",
    r"by (?:continuing|using|browsing)\b.{0,60}\b(?:agree|consent)\b.{0,40}\bcookies",
    r"(?:accept|reject|allow) all cookies",
    r"diese (?:web)?s(?:eite|ite) (?:verwendet|nutzt|benutzt) cookies",
    r"wir (?:verwenden|nutzen) cookies",
    r"(?:nous utilisons|ce site (?:web )?utilise) des cookies",
    r"(?:este sitio (?:web )?(?:utiliza|usa)|utilizamos|usamos) (?:las |os )?cookies",
    r"(?:questo sito (?:web )?(?:utilizza|usa)|utilizziamo) (?:i )?cookie",
    r"este s[ií]te? (?:utiliza|usa) (?:os )?cookies",
    r"(?:deze (?:web)?site gebruikt|wij gebruiken) cookies",
    r"(?:сайт использует|мы используем) (?:файлы )?cookie",
    r"(?:本网站|我们|本網站|我們)(?:会)?使用 ?cookie",
    r"当(?:サイト|社)では、?(?:cookie|クッキー)を(?:使用|利用)",
)
RIGHTS = (
    r"all rights reserved",
    r"alle rechte vorbehalten",
    r"tous droits réservés",
    r"todos los derechos reservados",
    r"tutti i diritti (?:sono )?riservati",
    r"todos os direitos reservados",
    r"alle rechten voorbehouden",
    r"все права защищены",
    r"版权所有|版權所有|保留所有权利|保留所有權利|保留一切权利",
    r"無断(?:転載|複製).{0,12}(?:禁|お断り)",
)
JAVASCRIPT = (
    r"(?:you need to|you must|please) (?:enable|turn on|activate) javascript",
    r"javascript (?:must be|is required|is disabled|is not enabled|seems to be disabled)",
    r"(?:(?:page|site|app) requires javascript|your browser does not support javascript)",
    r"bitte (?:aktivieren sie|schalten sie) javascript",
    r"veuillez activer javascript",
    r"(?:por favor|debe),? (?:active|activar|habilite|habilitar|ative) (?:o )?javascript",
    r"(?:attiva|abilita)(?:re)? javascript",
    r"(?:включите|включить) javascript",
    r"(?:请|請)(?:先)?(?:启用|開啟|启动|啟用) ?javascript",
    r"javascriptを有効に",
)
NEWSLETTER = (
    r"(?:subscribe|sign up) (?:to|for) (?:our|the|my) (?:\w+ ){0,2}(?:newsletter|mailing list)",
    r"(?:jetzt )?(?:unseren )?newsletter (?:abonnieren|bestellen)",
    r"abonnez-vous à (?:notre|la) newsletter",
    r"(?:suscríbete|suscríbase) (?:a nuestr[oa]|al?) (?:boletín|newsletter)",
    r"iscriviti alla (?:nostra )?newsletter",
    r"(?:assine|inscreva-se (?:n|em )?)(?:ossa|a nossa|na nossa) newsletter",
    r"подпи(?:шитесь|саться) на (?:наш[уи]? )?(?:рассылк|новост)",
    r"(?:订阅|訂閱)(?:我们|我們)的",
    r"メール(?:マガジン|ニュース)(?:に|を|の)?(?:登録|購読)",
)
# These must be the whole line.
SHARING = (
    r"(?:share|tweet|post|pin|like|follow|find)(?: (?:this|it|us))?"
    rf"(?: (?:article|post|page|story))? (?:on|via|to|by) {NETWORKS}(?:{AND}{NETWORKS})*",
    r"(?:share|tweet) this|(?:share|tweet|like) this (?:article|post|page|story)",
    rf"(?:auf|über) {NETWORKS} teilen|teilen auf {NETWORKS}",
    rf"(?:partager sur|suivez-nous sur) {NETWORKS}",
    rf"(?:compartir|compartilh(?:ar|e)) (?:en|no|em) {NETWORKS}",
    rf"condividi su {NETWORKS}",
    rf"поделиться(?: (?:в|на) {NETWORKS})?",
    rf"分享(?:到|至) ?{NETWORKS}?",
    rf"{NETWORKS}(?:で)?(?:シェア|共有)する",
    rf"(?:share:? *)?{NETWORKS}(?: *[|/·•] *{NETWORKS})+",
)
POLICIES = (
    r"(?:(?:privacy|cookie) policy|privacy notice|terms (?:of (?:use|service)|(?:and|&) conditions)"
    r"|contact us|about us|site ?map|impressum|datenschutz(?:erklärung)?|mentions légales"
    r"|隐私政策|使用条款|联系我们|プライバシーポリシー|利用規約|お問い合わせ)"
)
ENDINGS = r"[\s.!:：。！…»>→]*"

PHRASE = "|".join((*COOKIES, *RIGHTS, *JAVASCRIPT, *NEWSLETTER))
WHOLE_LINE = rf"\W*(?:{'|'.join(SHARING)}|{POLICIES}(?:\s*[|/·•]\s*{POLICIES})+){ENDINGS}"
HAS_PHRASE = re.compile(PHRASE, re.IGNORECASE)
IS_LIST = re.compile(WHOLE_LINE, re.IGNORECASE)

# The line before and the one after a book's text.
BOOK_BEGINS = re.compile(r"^\*{3} ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE)
BOOK_ENDS = re.compile(
    r"^(?:\*{3} ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg'?s? )",
    re.MULTILINE,
)
MAX_HEADER_CHARACTERS = 20_000
"""A line that looks like the end of a book's header does not count after so many."""

# One of these is in every line that PHRASE finds, in capitals or not: a far quicker search.
HINTS = (
    "cookie", "クッキー", "rights reserved", "vorbehalten", "droits réservés", "reservados",
    "riservati", "voorbehouden", "права защищены", "版权所有", "版權所有", "保留所有权利",
    "保留所有權利", "保留一切权利", "無断", "javascript", "newsletter", "mailing list", "boletín",
    "подпи", "Подпи", "订阅", "訂閱", "メール", "project gutenberg",
)  # fmt: skip


def remove_notices(texts: pl.Series) -> pl.Series:
    """The texts without such lines; the others are untouched."""
    suspect = texts.str.contains_any(HINTS, ascii_case_insensitive=True)
    suspect |= texts.str.contains(f"(?im:^{WHOLE_LINE}$)")
    if not suspect.any():
        return texts
    without = texts.filter(suspect).map_elements(without_notices, return_dtype=pl.String)
    return replaced(texts, suspect, without)


def without_notices(text: str) -> str:
    """The same for one text."""
    text = _within_book(text)
    lines = text.split("\n")
    kept = [line for line in lines if not _is_notice(line)]
    return text if len(kept) == len(lines) else "\n".join(kept)


def _is_notice(line: str) -> bool:
    if not line or len(line) > MAX_LINE_CHARACTERS:
        return False
    if IS_LIST.fullmatch(line):
        return True
    lowered = line.lower()
    return any(hint in lowered for hint in HINTS) and HAS_PHRASE.search(line) is not None


def _within_book(text: str) -> str:
    """A book of Project Gutenberg without the licence before and after it."""
    begin = BOOK_BEGINS.search(text, 0, MAX_HEADER_CHARACTERS)
    start = begin.end() if begin else 0
    end = BOOK_ENDS.search(text, start)
    return text[start : end.start()].strip() if begin and end else text

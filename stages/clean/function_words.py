"""Words without which nobody writes a paragraph: articles, prepositions, pronouns, auxiliaries.

About as many for each language as make up a tenth of its running text or more. Of Chinese and
Japanese they are characters, as everywhere in cleaning; elsewhere single letters are left out, of
which noise has as many.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.core.words import Words, words

SURE = 0.5
"""Confidence from which on a text is taken to be in the language that the model names."""

FUNCTION_WORDS = {
    "ar": "في من على إلى أن هذا هذه التي الذي عن مع كان كانت ما لا هو هي قد لم بعد بين أو كل ثم إن",
    "bg": "на от да за се по не това са ще но като до при си или как ми той тя",
    "ca": "de la el que en per un una les els amb del al és no es com més seva va són aquest",
    "cs": "se na je že do to pro jako by po ve ale za jsou nebo který jeho jsem byl",
    "da": "og at det er en til af for på med den som der ikke de et var han har men fra kan om vi",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als "
    "auch es an er hat aus bei sie werden wird oder wie einer ich war",
    "el": "και το να του της με που για από την των σε τα είναι δεν στο θα στην ότι τον ένα",
    "en": "the of and to in is that for it as was with be by on not he his but at are this have "
    "had from you or an they which one all we her she can if when your will has my its",
    "es": "de la que el en los se del las un por con no una su para es al lo como más pero sus "
    "le ha este si cuando era",
    "et": "ja on ei et see ta oli ka kui ning mis aga oma või nagu ma sest mitte siis selle",
    "fa": "در به از که این را با است برای آن یک خود تا بر هم نیز شد ها می بود یا شده",
    "fi": "ja on ei että oli se hän joka mutta kun niin myös ovat tai kuin ole mukaan sen ne "
    "jos voi",
    "fr": "de la le et les des en un une du est que dans qui pour par il au sur pas plus ne se "
    "ce avec son sont ou elle je vous cette être",
    "he": "של את על לא הוא זה עם כי גם אל היא או אני היה מה כל אם יש אבל רק אשר כמו",
    "hi": "के का की में है से को और पर ने कि यह एक हैं भी नहीं इस तो ही या लिए कर था जो",
    "hr": "je se na da za su od kao koji što ne iz po bi to ili će ali nije te",
    "hu": "az és hogy nem is egy meg ez de van azt csak ki volt el még mint ha vagy már lehet be",
    "id": "yang dan di dari ini untuk dengan pada tidak dalam adalah itu ke akan atau oleh juga "
    "dapat sebagai saya anda telah bisa ada",
    "it": "di il la che in per un non una del le si con da sono della al come alla lo più dei "
    "gli nel ha anche",
    "ja": "の に は を た が で て と し れ さ る い も な ま す こ か",
    "la": "et in est non ad ut cum quod qui sed si ex quae de per atque ac ab enim hoc esse aut",
    "lt": "ir yra iš kad su kaip tai ar bet jo buvo dėl nuo už arba jis savo taip po",
    "lv": "un ir no ar uz par ka kas tas bija kā vai bet to pie es viņš arī pēc lai",
    "nl": "de van het een en in is dat op te zijn met voor niet aan er om ook als door maar bij "
    "die wordt of naar uit was ik hij",
    "no": "og er på det som en til av for at med ikke de et den har om fra var kan men vi jeg",
    "pl": "na się nie do to że jest jak po co od za dla przez tak lub są być oraz ale",
    "pt": "de que do da em um para com não uma os no se na por mais as dos como mas ao ou das "
    "seu sua ser",
    "ro": "de și în la cu pe care că nu din este un pentru se mai sau ce al fi prin după dar",
    "ru": "не на что он как это по но из за от так же для то вы или его был при если",
    "sk": "sa na je že do aj to pre ako by po vo ale za sú alebo ktorý som bol",
    "sl": "in je na se da za so ki pa ne po kot bi tudi od ali iz kako ni",
    "sr": "је се на да за су од као који што не из по би то или ће али није те je se na da za "
    "su od kao koji što ne iz po bi to ili će ali nije te",
    "sv": "och att det som en är på av för med den till inte ett om de har var jag han men så kan",
    "tr": "ve bir bu da de için ile çok olarak daha ne gibi olan kadar var ama ya sonra veya "
    "her en",
    "uk": "не на що до як та це за про він від але по так для її або при якщо які",
    "vi": "và của là có trong cho được không với các một những người này để khi đã từ đến ra "
    "như thì",
    "zh": "的 一 是 不 了 在 有 和 中 为 我 人 这 上 以 到 时 个 可 用 行 要 于 這 個 "
    "為 時 會 他 与 或 如 其 们 們 之 也 就 大 地 出 下 对 成 后 能 文 件",
}

LOREM_IPSUM = (
    "lorem ipsum dolor amet consectetur consectetuer adipiscing adipisicing elit eiusmod tempor "
    "incididunt labore dolore magna aliqua minim veniam nostrud exercitation ullamco laboris nisi "
    "aliquip commodo consequat duis aute irure reprehenderit voluptate velit cillum fugiat nulla "
    "pariatur excepteur occaecat cupidatat proident culpa officia deserunt mollit anim laborum "
    "vestibulum faucibus orci luctus ultrices cubilia curae pellentesque habitant morbi tristique "
    "senectus netus malesuada fames turpis egestas vivamus suspendisse vulputate sagittis lectus"
)
"""Rare in Latin that says something."""


class KnownWords(NamedTuple):
    """A table in which each known word has a place of its own, which some bits of its hash give."""

    hashes: NDArray[np.uint64]
    languages: NDArray[np.uint64]
    """A bit for each language of which it is a function word, in the order above."""
    is_lorem: NDArray[np.bool_]
    shift: np.uint64


def known_word_shares(
    text_words: Words, languages: pl.DataFrame | None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Of each text's words the share that are function words of its language, and the share that
    are those of lorem ipsum.

    The first is NaN for a language without a list, or without ``languages`` (see
    `stages.clean.language`). Where the language is not sure, words of any language count, in
    proportion to the confidence: of gibberish the model is sure of none.
    """
    table = _known_words()
    counts = np.diff(text_words.offsets)
    places = text_words.hashes >> table.shift & np.uint64(len(table.hashes) - 1)
    found = np.flatnonzero(table.hashes[places] == text_words.hashes)
    places = places[found]
    texts = np.searchsorted(text_words.offsets, found, side="right") - 1
    lorem = np.bincount(texts[table.is_lorem[places]], minlength=len(counts))
    lorem_shares = lorem / np.maximum(counts, 1)
    if languages is None:
        return np.full(len(counts), np.nan), lorem_shares
    confidence = languages["confidence"].to_numpy().astype(np.float64)
    codes = dict(zip(FUNCTION_WORDS, range(len(FUNCTION_WORDS)), strict=True))
    numbers = languages["language"].replace_strict(codes, default=-1, return_dtype=pl.Int64)
    number = numbers.to_numpy()
    bits = np.where(
        number >= 0, np.uint64(1) << np.maximum(number, 0).astype(np.uint64), np.uint64(0)
    )
    # Of English too: of manuals half a page is often not translated.
    bits |= np.uint64(1 << codes["en"])
    bits = np.where(confidence >= SURE, bits, ANY)
    is_function = table.languages[places] & bits[texts] > 0
    shares = np.bincount(texts[is_function], minlength=len(counts)) / np.maximum(counts, 1)
    shares *= np.minimum(confidence / SURE, 1)
    shares[(number < 0) & (confidence >= SURE)] = np.nan
    return shares, lorem_shares


ANY = np.uint64(2**64 - 1)
TABLE_BITS = 17


@cache
def _known_words() -> KnownWords:
    languages: dict[int, int] = {}
    for number, listed in enumerate(FUNCTION_WORDS.values()):
        for word in words(pl.Series([listed])).hashes.tolist():
            languages[word] = languages.get(word, 0) | 1 << number
    lorem = set(words(pl.Series([LOREM_IPSUM])).hashes.tolist())
    known = np.array(sorted(languages.keys() | lorem), np.uint64)
    for shift in map(np.uint64, range(64 - TABLE_BITS)):
        places = known >> shift & np.uint64((1 << TABLE_BITS) - 1)
        if len(np.unique(places)) == len(known):
            break
    else:
        raise AssertionError("no 17 bits tell the known words apart")
    table = KnownWords(
        np.zeros(1 << TABLE_BITS, np.uint64),
        np.zeros(1 << TABLE_BITS, np.uint64),
        np.zeros(1 << TABLE_BITS, np.bool_),
        shift,
    )
    table.hashes[places] = known
    table.languages[places] = [languages.get(word, 0) for word in known.tolist()]
    table.is_lorem[places] = [word in lorem for word in known.tolist()]
    return table

"""Which language a text is in."""

import polars as pl
import pytest

from stages.clean.language import PIECE_CHARACTERS, identify, is_other, samples

TEXTS = {
    "en": "The house stood on a hill, and in the evening one could see the lights of the harbour.",
    "de": "Das Haus stand auf einem Hügel, und am Abend konnte man die Lichter des Hafens sehen.",
    "fr": "La maison se trouvait sur une colline, et le soir on voyait les lumières du port.",
    "es": "La casa estaba sobre una colina, y por la noche se veían las luces del puerto.",
    "ru": "Дом стоял на холме, и вечером были видны огни гавани.",
    "ar": "كان البيت قائما على تل، وفي المساء كان يمكن رؤية أضواء الميناء.",
    "hi": "घर एक पहाड़ी पर था, और शाम को बंदरगाह की रोशनी दिखाई देती थी।",
    "th": "บ้านตั้งอยู่บนเนินเขา และในตอนเย็นสามารถมองเห็นแสงไฟของท่าเรือได้",
    "ja": "その家は丘の上に建っていて、夕方には港の明かりが見えた。",
    "zh": "房子坐落在山上，傍晚时分可以看到港口的灯光。",
    "ko": "집은 언덕 위에 있었고, 저녁에는 항구의 불빛이 보였다.",
}


def test_each_language_is_known():
    found = identify(pl.Series(list(TEXTS.values())))
    assert found["language"].to_list() == list(TEXTS)
    assert found.schema == {"language": pl.String, "confidence": pl.Float32}
    assert found["confidence"].min() > 0.5
    assert found["confidence"].max() <= 1


@pytest.mark.parametrize("language", ["de", "zh", "ru"])
def test_code_markup_and_addresses_do_not_count(language):
    code = "import os\nfor path in os.listdir('/tmp'): print(path.name, x[1] == y_2)\n"
    page = f"<p class='lead'>{TEXTS[language]}</p> https://en.example.com/the/house/and/the/hill\n"
    found = identify(pl.Series([f"{page}```python\n{code * 2}```\n{TEXTS[language]}\n" * 4]))
    assert found["language"].to_list() == [language]


@pytest.mark.parametrize("text", ["", "  \n", "123 456 https://example.com x_1 == y_2"])
def test_a_text_without_words_has_no_language(text):
    assert identify(pl.Series([text])).rows() == [("und", 0.0)]


def test_of_a_long_text_two_pieces_are_read():
    text = "front " * 50 + "one " * 150 + "two " * 450  # 300, 600 and 1,800 characters
    (sample,) = samples(pl.Series([text]))
    assert set(sample.split()) == {"one", "two"}  # from 450 on and from 1,800 on
    assert len(sample) <= 2 * PIECE_CHARACTERS + 1
    mixed = "Contents and preface of the book by the author. " * 4 + TEXTS["de"] * 20
    assert identify(pl.Series([mixed]))["language"].to_list() == ["de"]


def test_numbers_leave_a_sentence_without_spaces_whole():
    assert samples(pl.Series(["本程序在2020年发布"])).to_list() == ["本程序在 年发布"]


def test_a_text_is_judged_alone():
    texts = pl.Series([*TEXTS.values(), ""])
    together = identify(texts).rows()
    assert together == [identify(texts[row : row + 1]).row(0) for row in range(len(texts))]
    assert identify(texts.reverse()).rows() == together[::-1]
    assert identify(pl.Series([], dtype=pl.String)).is_empty()


def test_a_few_words_and_code_are_in_no_other_language():
    texts = pl.Series(
        ["print(x)", "1 + 1 = ?", "Hola", "¿Cuál es la capital de Francia?", "Hi", TEXTS["de"]]
    )
    lengths = texts.str.len_chars().to_numpy()
    found = identify(texts)
    assert is_other(found, lengths, ("en",)).tolist() == [False] * 3 + [True, False, True]
    assert is_other(found, lengths, ("en", "es", "de")).tolist() == [False] * 6

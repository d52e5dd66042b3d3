"""The rules of quality: what each catches, what it does not, and who survives them all."""

import ast
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.clean.language import identify
from stages.clean.notices import remove_notices
from stages.clean.prose import prose
from stages.clean.quality import RULES, faults, scores
from stages.clean.repair import repair
from stages.core.config.data import QualityLimits
from stages.core.words import words

LIMITS = QualityLimits()


def score(*texts):
    column = pl.Series("text", texts, dtype=pl.String)
    return scores(column, words(column), identify(column))


def first_faults(*texts, skip=(), limits=LIMITS):
    return faults(score(*texts), limits, skip)["rule"].to_list()


PROSE = (
    "The harbour lies at the end of the valley, and most of the houses were built when the mine "
    "was still open. In winter the road is closed for weeks, so that people have to take the boat."
)
WORDS = (
    "stone",
    "river",
    "market",
    "window",
    "garden",
    "letter",
    "winter",
    "doctor",
    "engine",
    "silver",
    "bridge",
    "forest",
    "candle",
    "butter",
    "hammer",
    "island",
    "kitchen",
    "ladder",
    "mirror",
    "needle",
    "orange",
    "pepper",
    "quarry",
    "ribbon",
    "saddle",
)


def numbered(pattern, count=12):
    return "\n".join(pattern.format(WORDS[index], WORDS[-index - 1]) for index in range(count))


def varied(pattern, count):
    """Lines of which no two share two words in a row."""
    joints = "and the|of a|with its|for this|by any|near every|under our|from that|as one|in each"
    lines = [
        pattern.format(f"{WORDS[index]} {joint} {WORDS[index + 9]}")
        for index, joint in enumerate(joints.split("|"))
    ]
    return "\n".join(lines[:count])


# Of each rule a text that it removes, and one as near to it as the rule should let pass.
JUNK = {
    "too_short": "Read more about it here.",
    "symbol_share": "<<<>>> ||| {{{}}} ### @@@ text ^^^ %%% &&& *** more === +++ ~~~ !!! ;;; ???",
    "digit_share": "\n".join(
        f"{n * 7919 % 1000}.{n * 31 % 100:02} {n * 104729 % 9973}" for n in range(40)
    ),
    "broken_characters": PROSE.replace("i", "\ufffd"),
    "character_runs": "Aaaaaaaaaaah nooooooooooo whyyyyyyyyyy hmmmmmmmmm okaaaaay yesssssssss!",
    "encoded_data": "The key is\n"
    + "MIIEpAIBAAKCAQEA7bq3ZkWq9pV2xTnYcR5dLs8uJfGh\n" * 3
    + "as was said.",
    "addresses": "\n".join(
        f"https://example.com/{a}/{b}/page.html" for a in WORDS[:9] for b in WORDS[:2]
    ),
    "mean_word_length": "The "
    + " ".join(f"{a}{b}{c}{a}" for a, b, c in zip(WORDS, WORDS[5:], WORDS[9:], strict=False)),
    "placeholder_text": (
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt "
        "ut labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation."
    ),
    "function_words": ", ".join(f"{a} {b}" for a, b in zip(WORDS, WORDS[7:], strict=False)),
    "bullet_lines": numbered("* The {} and the {}, with all that is in them"),
    "ellipsis_lines": numbered("The {} and the {} were not what they had been..."),
    "short_lines": numbered("The {} of {}"),
    "repeated_lines": numbered("All about the {} in the {}.", 8)
    + "\nSee the whole list of what we have got in store for you." * 8,
    "top_ngram": " ".join(f"Get the best deal for your {word} today." for word in WORDS),
    "repeated_ngrams": " ".join(
        f"{word.title()} is one of the things that many people in this country look for every year."
        for word in WORDS
    ),
}
NEAR_MISSES = {
    "too_short": "Read more about it here, in the second part.",
    "symbol_share": "Let f(x) = (a + b)/2 and g(x) = [x - 1]^2; then h(x) = {y : y < x} is in it.",
    "digit_share": "In 1905 he wrote 4 papers, in 1915 and 1916 another 15; 1921 came the prize.",
    "broken_characters": PROSE + " It is called Gr\ufffdnau by its people." + PROSE,
    "character_runs": "Aaaaaah, she said, and then: noooo. Nothing was heard but the rain outside.",
    "encoded_data": PROSE
    + " Its digest is 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c.",
    "addresses": PROSE + " More is at https://example.com/harbour/mine.html and in the museum.",
    "mean_word_length": (
        "Die Donaudampfschifffahrtsgesellschaft und die Rindfleischetikettierungsüberwachung sind "
        "Beispiele für Zusammensetzungen, Verwaltungsvorschriften und Wörterbucheinträge."
    ),
    "placeholder_text": PROSE + " Designers fill such a page with lorem ipsum dolor sit amet.",
    "function_words": "Mount " + ", ".join(WORDS) + " on the wall of the shed.",
    "bullet_lines": "These are left:\n" + varied("* {} somewhere else", 10) + "\nThat is all.",
    "ellipsis_lines": varied("{}.", 10) + "\nAnd so on...\nOr not...",
    "short_lines": varied("{},", 10),
    "repeated_lines": varied("{}.", 10) + "\nSee the list.\nSee the list.",
    "top_ngram": varied("You will find {}.", 4) + varied("Look for {}.", 4),
    "repeated_ngrams": PROSE + " As they say, " + PROSE.split(",")[0] + ".",
}


def test_there_is_an_example_of_every_rule():
    names = [rule.name for rule in RULES]
    assert list(JUNK) == list(NEAR_MISSES) == names
    assert sorted(rule.limit for rule in RULES) == sorted(QualityLimits.model_fields)
    assert all(rule.reason and rule.source for rule in RULES)


@pytest.mark.parametrize("name", JUNK)
def test_each_rule_catches_its_junk_and_passes_what_is_near(name):
    found, near = score(JUNK[name], NEAR_MISSES[name]), None
    rule = next(rule for rule in RULES if rule.name == name)
    others = {other.name for other in RULES} - {name}
    assert faults(found, LIMITS, others)["rule"].to_list() == [name, near]
    assert faults(found, LIMITS)["rule"][1] is None
    assert faults(found, LIMITS)["rule"][0] is not None
    value = faults(found, LIMITS, others)["score"][0]
    assert value == found[name][0]
    assert (value < rule.default()) == rule.limit.startswith("min_")


def test_scores_by_hand():
    text = "One two.\n* Three 45\n\nAaaaaab...\nOne two.\n| 1 | 2 |\n| 3 | 4 |"
    found = score(text + "\nx" * 5).row(0, named=True)
    total = 60 + 10
    assert found["too_short"] == total
    assert found["symbol_share"] == pytest.approx(6 / total)  # . * ... . and not those of the table
    assert found["digit_share"] == pytest.approx(2 / total)
    assert found["character_runs"] == pytest.approx(5 / total)
    assert found["broken_characters"] == found["encoded_data"] == found["addresses"] == 0
    assert found["mean_word_length"] == pytest.approx((3 * 4 + 5 + 2 + 7 + 5) / 12)
    # Of 11 lines that are not blank, two are a table's.
    assert found["bullet_lines"] == pytest.approx(1 / 11)
    assert found["ellipsis_lines"] == pytest.approx(1 / 11)
    assert found["short_lines"] == pytest.approx(6 / 11)
    assert found["repeated_lines"] == pytest.approx((8 + 4) / total)
    assert found["top_ngram"] == pytest.approx(6 / 16)  # "x x" three times again, of 16 words
    assert found["function_words"] is None  # fewer than 20 words


def test_faults_come_in_the_order_of_the_rules_and_can_be_skipped():
    text = "#" * 30
    found = score(text, PROSE)
    assert faults(found, LIMITS).rows() == [("too_short", 30.0), (None, None)]
    assert faults(found, LIMITS, ["too_short"]).rows() == [("symbol_share", 1.0), (None, None)]
    every = [rule.name for rule in RULES]
    assert faults(found, LIMITS, every).rows() == [(None, None)] * 2
    assert faults(found, QualityLimits(min_characters=30, max_symbol_share=1)).rows()[0][0] is None
    assert faults(found, QualityLimits(min_characters=500)).rows()[1] == ("too_short", len(PROSE))


def test_a_score_at_the_limit_is_no_fault():
    found = score("word ### " * 9)
    share = found["symbol_share"][0]
    skip = ["top_ngram", "repeated_ngrams", "function_words"]
    assert faults(found, QualityLimits(max_symbol_share=0.34), skip)["rule"].to_list() == [None]
    assert share == pytest.approx(27 / 81)


CHINESE_MARKDOWN = """# 梯度下降的原理与实现

梯度下降是机器学习中最常用的优化方法。它沿着损失函数下降最快的方向更新参数，直到收敛为止。
设损失函数为 $L(\\theta)$，学习率为 $\\eta$，则每一步的更新公式是：

$$
\\theta_{t+1} = \\theta_t - \\eta \\nabla L(\\theta_t)
$$

其中 $\\nabla L(\\theta_t)$ 是在 $\\theta_t$ 处的梯度。如果学习率太大，参数会在最优点附近振荡。

## 代码

下面的代码用 Python 实现了这个方法：

```python
def gradient_descent(f, x, rate=0.1, steps=100):
    for _ in range(steps):
        x = x - rate * grad(f)(x)  # 更新参数
    return x
```

## 比较

| 方法 | 学习率 | 收敛步数 | 备注 |
|------|-------:|---------:|------|
| SGD  | 0.1    | 1200     | 简单 |
| 动量 | 0.1    | 450      | 较快 |
| Adam | 0.001  | 300      | 常用 |

从表中可以看出，自适应方法需要的步数最少，但是每一步的计算量更大。在实际应用中，应当根据数据
的规模和模型的结构来选择合适的方法，而不是只看收敛的速度。
"""

SURVIVORS = {
    "zh": CHINESE_MARKDOWN,
    "zh without spaces": (
        "房子坐落在山上，傍晚时分可以看到港口的灯光。老人每天早上都会沿着海边散步，他说那里的空"
        "气对身体有好处。孩子们放学以后也喜欢到沙滩上玩，直到太阳下山才回家。"
    ),
    "ja": (
        "その家は丘の上に建っていて、夕方には港の明かりが見えた。祖父は毎朝、海辺を散歩する。子"
        "どもたちは学校が終わると砂浜で遊び、日が暮れるまで帰らない。冬になると道が閉ざされるの"
        "で、町へ行くには船に乗らなければならない。"
    ),
    "th": (
        "บ้านตั้งอยู่บนเนินเขา และในตอนเย็นสามารถมองเห็นแสงไฟของท่าเรือได้ คุณปู่เดินเล่นริมทะเ"
        "ลทุกเช้า เขาบอกว่าอากาศที่นั่นดีต่อสุขภาพ เด็กๆ ชอบเล่นบนชายหาดหลังเลิกเรียน จนกว่าพระ"
        "อาทิตย์จะตกดิน"
    ),
    "ar": (
        "كان البيت قائما على تل، وفي المساء كان يمكن رؤية أضواء الميناء. كان الجد يمشي كل صباح "
        "على شاطئ البحر، وقال إن الهواء هناك مفيد للصحة. وبعد المدرسة يلعب الأطفال على الرمل حت"
        "ى تغرب الشمس."
    ),
    "hi": (
        "घर एक पहाड़ी पर था, और शाम को बंदरगाह की रोशनी दिखाई देती थी। दादाजी हर सुबह समुद्र के"
        " किनारे टहलते थे और कहते थे कि वहाँ की हवा सेहत के लिए अच्छी है। बच्चे स्कूल के बाद रे"
        "त पर खेलते थे।"
    ),
    "ru": (
        "Дом стоял на холме, и вечером были видны огни га"
        "вани. Дедушка каждое утро гулял по берегу моря "
        "и говорил, что тамошний воздух полезен для здор"
        "овья. После школы дети играли на песке."
    ),
    "ko": (
        "집은 언덕 위에 있었고, 저녁에는 항구의 불빛이 보였다. 할아버지는 매일 아침 바닷가를 산"
        "책하며 그곳의 공기가 건강에 좋다고 말했다. 아이들은 학교가 끝나면 모래밭에서 놀았다."
    ),
    "vi": (
        "Ngôi nhà nằm trên một ngọn đồi, và vào buổi tối người ta có thể thấy ánh đèn "
        "của bến cảng. Mỗi buổi sáng ông đi dạo dọc theo bờ biển và nói rằng không khí ở "
        "đó tốt cho sức khỏe."
    ),
    "code": (
        "Run it so:\n\n```sh\nfor f in *.c; do cc -O2 -c $f && echo $f; done\n"
        "```\n\nIt prints names."
    ),
    "code alone": (
        "```c\nint main(void) { return f(x) + g(y); }\n"
        "int main(void) { return f(x); }\n```\n"
    ),
    "man page": (
        "NAME\n       cat - concatenate files\n\nSYNOPSIS\n"
        "       cat [OPTION]... [FILE]...\n\nDESCRIPTION\n"
        "       Concatenate FILE(s) to standard output.\n"
        "\n       -A, --show-all\n              equivalent to -vET\n"
        "\n       -b, --number-nonblank\n              number the lines that are not empty, "
        "overrides -n\n"
    ),
    "verse": (
        "The sea is calm tonight.\nThe tide is full, the moon lies fair\n"
        "Upon the straits; on the French coast the light\n"
        "Gleams and is gone;"
    ),
    "wikitext": (
        "The Sinclair C5 was sold for £ 399 , and had a top speed of 15 @-@ 20 mph . It was pow"
        "ered by a lead @-@ acid battery , which gave it a range of 20 @,@ 000 metres ."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SURVIVORS)
def test_every_language_and_code_survive(name):
    text = SURVIVORS[name]
    assert first_faults(text) == [None], score(text).row(0, named=True)
    assert first_faults(text + "\n\n" + PROSE) == [None]


def test_a_chinese_document_cut_anywhere_survives():
    """As pieces of at least 95 % of its characters: each paragraph, table and block of code."""
    parts = [part for part in CHINESE_MARKDOWN.split("\n## ") if len(part) >= 40]
    found = first_faults(*parts)
    kept = sum(len(part) for part, fault in zip(parts, found, strict=True) if fault is None)
    assert kept >= 0.95 * sum(map(len, parts))


def test_nothing_of_a_chinese_document_is_taken_out():
    texts = pl.Series([CHINESE_MARKDOWN])
    assert remove_notices(repair(texts)).to_list() == [CHINESE_MARKDOWN]


def docstrings():
    """Of the standard library and of numpy: technical prose with code, lists and tables."""
    folders = [Path(json.__file__).parents[1], Path(np.__file__).parent / "lib"]
    for folder in folders:
        for path in sorted(folder.glob("*.py"))[:80]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node)
                    if text and len(text) >= 300:
                        yield text


def test_technical_prose_stays():
    texts = list(docstrings())
    assert len(texts) > 200
    rejected = [text for text, fault in zip(texts, first_faults(*texts), strict=True) if fault]
    assert len(rejected) <= 0.01 * len(texts), rejected


def gibberish(kind, generator):
    letters = "abcdefghijklmnopqrstuvwxyz"
    if kind == "letters":
        return " ".join(
            "".join(generator.choices(letters, k=generator.randint(3, 10))) for _ in range(80)
        )
    if kind == "printable":
        return "".join(generator.choices([chr(code) for code in range(33, 127)] + [" "] * 9, k=900))
    if kind == "keyboard":
        rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
        return " ".join(
            "".join(generator.choices(generator.choice(rows), k=generator.randint(4, 11)))
            for _ in range(80)
        )
    if kind == "bytes":
        return generator.randbytes(900).decode("cp437").translate(dict.fromkeys(range(32), 32))
    if kind == "han":
        return "".join(chr(generator.randint(0x4E00, 0x9FA5)) for _ in range(300))
    if kind == "keywords":
        return ", ".join(" ".join(generator.sample(WORDS, 3)) for _ in range(40))
    raise AssertionError(kind)


def test_gibberish_is_caught():
    caught = {}
    for kind in ("letters", "printable", "keyboard", "bytes", "han", "keywords"):
        texts = [gibberish(kind, random.Random(seed)) for seed in range(50)]
        caught[kind] = sum(fault is not None for fault in first_faults(*texts)) / 50
    assert min(caught.values()) >= 0.95, caught
    assert sum(caught.values()) / len(caught) >= 0.98, caught


def test_a_text_is_judged_alone():
    texts = [*JUNK.values(), *NEAR_MISSES.values(), *SURVIVORS.values(), "", " "]
    together = score(*texts)
    assert together.rows() == [score(text).row(0) for text in texts]
    assert score(*reversed(texts)).rows() == together.rows()[::-1]
    assert together.schema == {rule.name: pl.Float32 for rule in RULES}
    assert score().height == 0


def test_scores_do_not_change_their_input():
    texts = pl.Series("text", list(SURVIVORS.values()))
    before = texts.to_list()
    scores(texts, words(texts))
    prose(texts)
    assert texts.to_list() == before


def test_without_languages_no_function_words_are_looked_for():
    texts = pl.Series([PROSE])
    found = scores(texts, words(texts))
    assert found["function_words"].to_list() == [None]
    assert found.drop("function_words").equals(score(PROSE).drop("function_words"))
    assert np.isfinite(score(PROSE)["function_words"][0])

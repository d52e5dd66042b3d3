from stages.clean.rows import content, fingerprint, learnt_texts, texts_of, with_texts

ROW = {
    "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "chosen": "c",
    "rejected": "r",
    "margin": 1.0,
    "meta": {"deep": ["m", 3]},
}


def test_texts_are_taken_out_and_put_back_in_one_order():
    assert texts_of(ROW) == ["s", "u", "c", "r", "m"]
    assert with_texts(ROW, iter(texts_of(ROW))) == ROW
    changed = with_texts(ROW, iter("SUCRM"))
    assert changed["prompt"] == [
        {"role": "system", "content": "S"}, {"role": "user", "content": "U"}
    ]  # fmt: skip
    assert (changed["chosen"], changed["margin"], changed["meta"]) == ("C", 1.0, {"deep": ["M", 3]})


def test_what_a_model_learns_excludes_meta():
    assert learnt_texts(ROW) == ["s", "u", "c", "r"]
    assert content(ROW) == "s\n\nu\n\nc\n\nr"


def test_fingerprints_ignore_case_and_white_space_alone():
    assert fingerprint(["A  b\n"]) == fingerprint(["a b"])
    assert fingerprint(["Straße x"]) == fingerprint(["STRASSE\u00a0X"])
    assert fingerprint(["a b"]) != fingerprint(["a, b"])
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])

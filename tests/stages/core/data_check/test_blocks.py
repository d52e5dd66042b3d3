import gzip

import pytest

from stages.core.data_check.blocks import Block, DamagedFileError, blocks, lines_at, pieces


def test_blocks_hold_whole_lines_with_their_numbers(tmp_path):
    lines = [b"%d %s" % (number, b"x" * 990) for number in range(1, 9001)]
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines), 1))
    found = list(blocks(path))
    assert len(found) > 1
    for block in found:
        assert block.data.startswith(b"%d " % block.first_line)
    assert b"".join(block.data for block in found) == b"\n".join(lines)
    assert lines_at(path, [8999, 2]) == {2: lines[1], 8999: lines[8998]}


def test_a_huge_line_is_left_out_and_the_next_one_read(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"first\n" + b"y" * 25_000_000 + b"\nthird\n")
    found = list(blocks(path))
    assert [(block.first_line, block.is_huge) for block in found] == [
        (1, False), (2, True), (3, False),
    ]  # fmt: skip
    assert found[1].head == b"y" * 200
    assert found[2].data == b"third\n"


def test_a_damaged_file_gives_what_is_readable_of_it_but_no_torn_line(tmp_path):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000)[:-10])
    found = []
    with pytest.raises(DamagedFileError, match="cut off or damaged"):
        found.extend(block.data for block in blocks(path))
    assert set(b"".join(found).split(b"\n")) <= {b"line", b""}


def test_utf_16_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("text", encoding="utf-16")
    with pytest.raises(DamagedFileError, match="iconv -f UTF-16"):
        list(blocks(path))


def test_pieces_are_cut_between_lines():
    block = Block(7, b"aa\nbbb\ncccc\nd")
    assert list(pieces(block, 3)) == [
        Block(7, b"aa\n"),
        Block(8, b"bbb\n"),
        Block(9, b"cccc\n"),
        Block(10, b"d"),
    ]
    assert list(pieces(block, 6)) == [Block(7, b"aa\nbbb\n"), Block(9, b"cccc\nd")]

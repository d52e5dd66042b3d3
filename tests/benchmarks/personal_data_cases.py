"""Labelled text that others wrote, or that their generators make: the cases of personal_data.py."""

import ast
import csv
import hashlib
import importlib
import itertools
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from stages.core.personal_data import KINDS

SOURCES = ("datafog==4.9.0", "pii-codex==0.6.1", "phonenumbers==9.0.43")
TEMPLATES = "presidio-evaluator==0.3.2"
GENERATORS = ("faker==40.54.0", "rstr", "detect-secrets==1.5.0")
LOCALES = ("en_US", "en_GB", "en_AU", "en_CA", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL",
           "pl_PL", "pt_BR", "sv_SE", "zh_CN", "ja_JP", "cs_CZ")  # fmt: skip
SSN_LOCALES = ("en_US", "it_IT", "es_ES", "zh_CN", "sv_SE", "fi_FI", "ko_KR")
"""Whose numbers can be told without the word that their country has for them (in Faker Britain's
begin with ZZ, which is never given out, and Brazil's are plain digits)."""
FILLS = 24
"""Of each template."""
STRINGS = 12
"""Of each expression for secrets."""
PLACEHOLDER_KINDS = {
    "phone_number": "phone", "email": "email", "credit_card_number": "credit_card", "iban": "iban",
    "ssn": "national_id", "ip_address": "ip_address",
}  # fmt: skip
ARGUMENT_KINDS = {
    "email": "email", "phone": "phone", "ssn": "national_id", "card": "credit_card",
    "ip": "ip_address", "ssn_text": "national_id", "zip_code": "", "date": "",
}  # fmt: skip
NAMED_OTHERWISE = {
    "person": "name", "organization": "company", "url": "uri", "zipcode": "postcode",
    "nationality": "country", "nation_woman": "country", "nation_plural": "country",
    "date_time": "date", "ip_address": "ipv4_public",
}  # fmt: skip
OTHERS = {"Public IP (ipv4)", "Private Key", "Basic Auth Credentials"}
"""Of detect-secrets: no secret, only the beginning of one, or with any signs for the password."""


class Case(NamedTuple):
    """A text and the personal data in it."""

    source: str
    group: str
    """Cases of one group are in one half."""
    text: str
    expected: tuple[tuple[str, str], ...]
    """Kinds and values."""
    asked: tuple[str, ...] = KINDS
    """The kinds that its author thought of: others are not judged."""


def half(group: str) -> str:
    """Which half a group is in, by its hash."""
    return ("tuned", "measured")[hashlib.sha256(group.encode()).digest()[0] % 2]


def all_cases(cache: Path) -> list[Case]:
    """The cases of both halves; downloads what it needs where it is not in the folder yet."""
    fetch(cache)
    sys.path.append(str(cache / "peers"))
    return [*filled_templates(cache), *tests_of_libraries(cache), *secrets()]


def fetch(cache: Path) -> None:
    """Download the packages once."""
    done = cache / "done"
    if done.exists():
        return
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    quiet = ["--no-deps", "-d", str(cache)]
    for source in SOURCES:
        subprocess.run([*pip, "download", *quiet, "--no-binary", ":all:", source], check=True)
    subprocess.run([*pip, "download", *quiet, TEMPLATES], check=True)
    subprocess.run([*pip, "install", "--target", str(cache / "peers"), *GENERATORS], check=True)
    done.touch()


# ---------------------------------------------------------------------------------- sentences


def filled_templates(cache: Path) -> Iterator[Case]:
    """Presidio's sentences with values of Faker and of Presidio's list of made-up people."""
    (path,) = cache.glob("presidio_evaluator-*.whl")
    with zipfile.ZipFile(path) as archive:
        data = "presidio_evaluator/data_generator/raw_data/"
        templates = archive.read(data + "templates.txt").decode().splitlines()
        table = archive.read(data + "FakeNameGenerator.com_3000.csv").decode("utf-8-sig")
    people = list(csv.DictReader(table.splitlines()))
    faker = importlib.import_module("faker")
    fakers = {locale: faker.Faker(locale) for locale in sorted({*LOCALES, *SSN_LOCALES})}
    for template in templates:
        faker.Faker.seed(template)
        chance = random.Random(template)
        names = re.findall(r"\{\{(\w+)\}\}", template)
        if "us_driver_license" in names:
            continue
        for _ in range(FILLS):
            local = fakers[chance.choice(SSN_LOCALES if "ssn" in names else LOCALES)]
            person = chance.choice(people) if chance.random() < 0.3 else {}
            values = [made_up(name, local, fakers["en_US"], person) for name in names]
            remaining = iter(values)
            text = re.sub(r"\{\{\w+\}\}", lambda _, it=remaining: next(it), template)
            expected = tuple(
                (PLACEHOLDER_KINDS[name], value)
                for name, value in zip(names, values, strict=True)
                if name in PLACEHOLDER_KINDS
            )
            yield Case("presidio-evaluator", template, text.replace("\\n", "\n"), expected)


def made_up(name: str, local: Any, american: Any, person: dict[str, str]) -> str:
    """A value for a placeholder: of this person where the list has one, else one of Faker's, in the
    local way where it has a kind that we look for."""
    listed = {
        "email": person.get("EmailAddress"),
        "phone_number": person and f"+{person['TelephoneCountryCode']} {person['TelephoneNumber']}",
    }.get(name)
    if listed:
        return listed
    faker = local if name in PLACEHOLDER_KINDS else american
    made = getattr(faker, NAMED_OTHERWISE.get(name, name), None)
    return str(made()) if made else "something"


# -------------------------------------------------------------------------------------- tests


def tests_of_libraries(cache: Path) -> Iterator[Case]:
    """Values and sentences with the verdict that a library's own tests expect."""
    for name, tree in [
        *source_files(cache, "datafog", r"/tests/test_regex_annotator\.py$"),
        *source_files(cache, "pii_codex", r"/test_detection_service\.py$"),
    ]:
        for names, rows in parametrized(tree):
            kind = ARGUMENT_KINDS.get(names[0])
            if kind is None or len(names) < 2:
                continue
            for text, is_expected, *_ in rows:
                if kind == "ip_address" and is_expected and not ip_address(text).is_global:
                    continue  # these belong to nobody: we leave them, and their author does not
                expected = ((kind, digits_of(text, kind)),) if is_expected and kind else ()
                asked = (kind,) if kind else KINDS
                yield Case(name.split("/")[0], f"{kind}{text}", text, expected, asked)
    german_kinds = {
        "DE_VAT_ID": None,
        "IBAN": "iban",
        "DE_IBAN": "iban",
        "DE_TAX_ID": "national_id",
    }
    for name, tree in source_files(cache, "datafog", r"/tests/test_de_pii_regex\.py$"):
        for names, rows in parametrized(tree):
            if names[:3] == ["label", "text", "expected"]:
                for label, text, value in rows:
                    if kind := german_kinds.get(label):
                        yield Case(name.split("/")[0], text, text, ((kind, value),))
    for name, tree in source_files(cache, "phonenumbers", r"/phonenumbermatchertest\.py$"):
        for node in tree.body:
            if isinstance(node, ast.Assign) and "IMPOSSIBLE_CASES" in ast.unparse(node.targets[0]):
                for text in re.findall(r"NumberTest\('([^']+)'", ast.unparse(node.value)):
                    yield Case(name.split("/")[0], text, text, ())


def source_files(cache: Path, package: str, pattern: str) -> Iterator[tuple[str, ast.Module]]:
    """Names and syntax trees of the files in a package's source archive."""
    (path,) = cache.glob(f"{package}-*.tar.gz")
    with tarfile.open(path) as archive:
        for member in archive:
            if re.search(pattern, member.name):
                file = archive.extractfile(member)
                assert file
                yield member.name, ast.parse(file.read())


def parametrized(tree: ast.Module) -> Iterator[tuple[list[str], list[Any]]]:
    """Argument names and rows of the tests whose parameters are literals."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "parametrize":
            try:
                names, rows = (ast.literal_eval(argument) for argument in node.args[:2])
            except ValueError:
                continue
            yield [name.strip() for name in names.split(",")], rows


def digits_of(text: str, kind: str) -> str:
    """The value in a sentence; a case that is only a value is its own."""
    found = re.search(r"\d[\d -]+\d", text) if kind == "national_id" else None
    return found.group() if found else text


# ------------------------------------------------------------------------------------ secrets


def secrets() -> Iterator[Case]:
    """Strings that match the expressions by which detect-secrets knows tokens of services."""
    plugins = importlib.import_module("detect_secrets.core.plugins.util")
    rstr = importlib.import_module("rstr")
    for name, plugin in sorted(plugins.get_mapping_from_secret_type_to_class().items()):
        expressions = getattr(plugin, "denylist", ())
        if name in OTHERS or isinstance(expressions, property):
            continue
        for expression in expressions:
            generator = rstr.Rstr(random.Random(expression.pattern))
            made = dict.fromkeys(strings_of(expression, generator))
            for text in itertools.islice(made, STRINGS):
                yield Case("detect-secrets", expression.pattern, text, (("secret", text),))


def strings_of(expression: re.Pattern[str], generator: Any) -> Iterator[str]:
    """Printable strings that the expression matches; none where the generator cannot make any."""
    for _ in range(10 * STRINGS):
        try:
            made = generator.xeger(expression.pattern)
        except (KeyError, ValueError, IndexError, TypeError):
            return
        if made.isprintable() and re.search(expression, made):
            yield made

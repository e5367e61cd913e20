"""The block-wise automaton gives py3langid's own answers."""

from pathlib import Path

import polars as pl
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from dpo_data.text import languages

SENTENCES = {
    "en": "The committee will publish its findings about the harbour next week.",
    "de": "Der Ausschuss wird seine Ergebnisse über den Hafen nächste Woche veröffentlichen.",
    "fr": "La commission publiera ses conclusions au sujet du port la semaine prochaine.",
    "es": "La comisión publicará sus conclusiones sobre el puerto la próxima semana.",
    "zh": "委员会将于下周公布关于港口的调查结果，请各位居民注意查看公告栏上的通知。",
    "ru": "Комитет опубликует свои выводы о гавани на следующей неделе.",
}


def test_six_languages_are_told_apart() -> None:
    assert languages.identify(pl.Series(list(SENTENCES.values()))).to_list() == list(SENTENCES)


def test_short_blank_and_missing_texts_are_null() -> None:
    assert languages.identify(pl.Series(["", "Yes.", None, "12345 67890 12345 67890 12345"])).to_list() == [None] * 4


def test_the_answers_are_those_of_the_library_one_by_one() -> None:
    library = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    texts = [f"{text} {'A' * (number % 7)}" for number, text in enumerate(SENTENCES.values())]
    texts += [text.upper() for text in SENTENCES.values()] + [text[:25] for text in SENTENCES.values()]
    for text, found in zip(texts, languages.identify(pl.Series(texts)), strict=True):
        label, share = library.classify(text)
        if found is not None:
            assert languages.SISTERS.get(label, label) == found
        else:
            assert share < 0.51 or sum(map(str.isalpha, text)) < 20


@pytest.mark.real
def test_the_chinese_set_is_chinese_and_the_english_english(real_data: Path) -> None:
    import json

    for name, code in (("dpo_zh_demo", "zh"), ("dpo_en_demo", "en")):
        rows = json.loads((real_data / "llamafactory-demo" / f"{name}.json").read_text())
        found = languages.identify(pl.Series([row["chosen"]["value"] for row in rows])).drop_nulls()
        share = (found == code).mean()
        print(f"{name}: {share:.3f} of {len(found)} in {code}")
        assert share > 0.95

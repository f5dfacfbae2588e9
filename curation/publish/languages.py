"""Which language a text seems to be in: by its script, and by function words where the script is Latin.

A guess for counting how a data set shifts, not for deciding about a row: short texts come out as ``unknown``.
"""

from __future__ import annotations

from typing import Final

import polars as pl

__all__ = ["guess_languages"]

_SCRIPTS: Final = {
    "ja": r"[\p{Hiragana}\p{Katakana}]",
    "zh": r"\p{Han}",
    "ko": r"\p{Hangul}",
    "ru and other Cyrillic": r"\p{Cyrillic}",
    "ar and other Arabic": r"\p{Arabic}",
    "he": r"\p{Hebrew}",
    "el": r"\p{Greek}",
    "hi and other Devanagari": r"\p{Devanagari}",
    "th": r"\p{Thai}",
}
_WORDS: Final = {
    "en": "the and of to is that it you for with this are what how do i",
    "de": "der die das und ist nicht ich du ein eine mit für auf zu wie",
    "fr": "le la les et est pas je vous une des pour que dans avec qui",
    "es": "el los las y es que de una por con para como del se más",
    "it": "il gli e è che di una per con non sono della come mi più",
    "pt": "o os e é que de uma por com não para como do você mais",
    "nl": "de het een en is niet ik je van met voor op dat zijn hoe",
}
_LEAST_WORDS: Final = 2
_LEAST_SHARE: Final = 0.2
_CUT: Final = 2_000


def guess_languages(texts: pl.Series) -> pl.Series:
    """A language code for each text, from its first 2,000 characters; ``unknown`` where nothing speaks for one.

    A script other than Latin decides when a fifth of the characters are written in it (kana count for Japanese
    wherever there are any); otherwise the language whose function words are most frequent, at least two.
    """
    text = pl.col("text").str.slice(0, _CUT).str.to_lowercase()
    size = text.str.len_chars().clip(lower_bound=1)
    scripts = [
        (text.str.count_matches(pattern) / size).fill_null(0.0).alias(name) for name, pattern in _SCRIPTS.items()
    ]
    words = [
        text.str.count_matches(rf"\b(?:{words.replace(' ', '|')})\b").fill_null(0).cast(pl.Float64).alias(name)
        for name, words in _WORDS.items()
    ]
    counted = texts.alias("text").to_frame().select(*scripts, *words)

    def first_with_most(names: list[str]) -> pl.Expr:
        most = pl.max_horizontal(names)
        return pl.coalesce(pl.when(pl.col(name) == most).then(pl.lit(name)) for name in names)

    kana, others = pl.col("ja") > _LEAST_SHARE / 10, [name for name in _SCRIPTS if name != "ja"]
    found = (
        pl.when(kana)
        .then(pl.lit("ja"))
        .when(pl.max_horizontal(others) >= _LEAST_SHARE)
        .then(first_with_most(others))
        .when(pl.max_horizontal(list(_WORDS)) >= _LEAST_WORDS)
        .then(first_with_most(list(_WORDS)))
        .otherwise(pl.lit("unknown"))
    )
    return counted.select(language=found)["language"]

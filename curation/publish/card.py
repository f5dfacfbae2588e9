"""The dataset card: README.md with the Hub's YAML header, and the figures beside it.

Everything that comes from data or recipe is escaped by default: the template cannot forget to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from curation.errors import InputError
from curation.models.prompt_encoding import TEMPLATE_ERRORS
from curation.publish.card_header import ConfigTable, card_header
from curation.publish.column_meanings import column_meaning
from curation.publish.gates import GateResult
from curation.publish.history import History
from curation.publish.report import Threshold, format_number

__all__ = ["CardData", "card_figures", "column_rows", "escape_markdown", "read_template", "render_card"]

_TEMPLATE: Final = "card.md.jinja"
_MARKUP: Final = re.compile(r"[\\`*\[\]{}|~$^]|(?<!\w)_|_(?!\w)|:(?=/)|^[-+#=>:]|(?<=^\d)[.)](?=\s)")
_TASKS: Final[Mapping[str, Mapping[str, list[str]]]] = {
    "preference": {"task_categories": ["text-generation"], "tags": ["preference", "dpo", "rlhf", "trl"]},
    "preference_unpaired": {"task_categories": ["text-generation"], "tags": ["preference", "kto", "trl"]},
    "reward": {"task_categories": ["text-classification"], "tags": ["preference", "reward-model", "rlhf", "trl"]},
    "reward_augmented": {"task_categories": ["text-generation"], "tags": ["preference", "dpo", "rlhf", "trl"]},
    "sft": {"task_categories": ["text-generation"], "tags": ["sft", "trl"]},
    "refusal": {"task_categories": ["text-generation"], "tags": ["refusal", "safety", "sft", "trl"]},
    "retrieval": {
        "task_categories": ["sentence-similarity"],
        "tags": ["retrieval", "hard-negatives", "sentence-transformers"],
    },
    "retrieval_triplets": {
        "task_categories": ["sentence-similarity"],
        "tags": ["retrieval", "hard-negatives", "triplets", "sentence-transformers"],
    },
}

_ABOUT: Final[Mapping[str, str]] = {
    "preference": "Pairs of answers to one prompt, the better one first, with the evidence for their order.",
    "preference_unpaired": "Answers that are good or bad by a preference pair, one a row.",
    "reward": "Two whole dialogues a row, the better one first, and the margin that reward models see.",
    "reward_augmented": "Pairs of answers under a goal in the system message; the better one meets it.",
    "sft": "Prompts with the answers that were chosen in preference pairs, each once.",
    "refusal": "Refusals where a refusal is expected, and answers to look-alikes where an answer is.",
    "retrieval": "Anchors with a positive and hard negatives.",
    "retrieval_triplets": "Anchors with a positive and one hard negative a row, the nearest first.",
}

_RETRIEVAL_TRAINING: Final = (
    "# A positive that stands in a batch twice would be a negative of its own anchor.\n"
    'args = SentenceTransformerTrainingArguments("model", batch_sampler=BatchSamplers.NO_DUPLICATES)\n'
    'SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset["train"], loss=loss)'
)
_TRAINING: Final[Mapping[str, str]] = {
    "preference": 'DPOTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "preference_unpaired": 'KTOTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "reward": 'RewardTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "reward_augmented": 'DPOTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "sft": 'SFTTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "refusal": 'SFTTrainer(model=model, train_dataset=dataset["train"], processing_class=tokenizer)',
    "retrieval": _RETRIEVAL_TRAINING,
    "retrieval_triplets": _RETRIEVAL_TRAINING,
}

_LIMITATIONS: Final = (
    "The order of the answers comes from the sources; scores come from the models named here, and both err.",
    "Thresholds that are quantiles depend on the rows of this run, so the same pair may fare otherwise in another.",
    "A refusal is what the detector takes for one; its errors are in the refusal rates above.",
    "Duplicates are removed within this data only. The texts are not checked for facts, personal data or bias, "
    "and prompts that ask for harm may be among them.",
)


class CardData(NamedTuple):
    """What a card says. Equal data give equal text: times are among ``facts`` or nowhere."""

    dataset: str
    """preference, preference_unpaired, refusal or retrieval."""
    name: str
    license: str
    splits: Mapping[str, int]
    """Split to rows."""
    languages: Sequence[str] = ()
    """Codes, as the Hub wants them: en, de, …"""
    facts: Mapping[str, str] = {}
    sources: Mapping[str, int] = {}
    """Source to rows read."""
    waterfall: pl.DataFrame = pl.DataFrame()
    """Rows of table ``waterfall`` for this dataset."""
    thresholds: Sequence[Threshold] = ()
    models: Sequence[Mapping[str, Any]] = ()
    """``step``, ``producer``, with the revision."""
    versions: Mapping[str, str] = {}
    gates: Sequence[GateResult] = ()
    columns: Sequence[tuple[str, str]] = ()
    """Column and type; see :func:`column_rows`."""
    figures: Mapping[str, str] = {}
    """Path inside the dataset's folder to caption; see :func:`card_figures`."""
    evidence: bool = False
    """Whether there is an ``evidence`` folder beside ``data``."""
    left_out: Sequence[str] = ()
    limitations: Sequence[str] = ()
    """Further ones, before those that hold for every dataset."""
    history: History | None = None
    """The versions, the last of which the card is of."""
    tables: Sequence[ConfigTable] = ()
    """Features and sizes for the header; see :func:`curation.publish.card_header.data_tables`."""
    location: str | None = None
    """What the loading snippet loads: the id on the Hub; by default the folder, seen from beside it."""


class _Plain(str):
    """Text of ours, which is not escaped."""

    __slots__ = ()


def render_card(data: CardData, *, template: str | None = None, template_path: str = "") -> str:
    """The card as markdown.

    Args:
        data: what it says.
        template: Jinja text in place of the packaged one; it is given the same names.
        template_path: where that text is from, for errors.

    Raises:
        InputError: when the template is broken, or asks for a field that there is not.
    """
    import jinja2
    import jinja2.sandbox

    named = f"card template {template_path}".rstrip()
    header = card_header(
        name=data.name,
        license=data.license,
        languages=data.languages,
        task=_TASKS[data.dataset],
        splits=data.splits,
        evidence=data.evidence,
        tables=data.tables,
    )
    environment = jinja2.sandbox.SandboxedEnvironment(
        autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_safe
    )
    packaged = resources.files("curation.publish").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    try:
        text = environment.from_string(template or packaged).render(
            data=data,
            header=_Plain(header),
            about=_Plain(_ABOUT[data.dataset]),
            snippet=_Plain(_snippet(data)),
            training=_Plain(_TRAINING[data.dataset]),
            meaning=column_meaning,
            limitations=[*data.limitations, *map(_Plain, _LIMITATIONS)],
            total=sum(data.splits.values()),
            waterfall=data.waterfall.sort("position").to_dicts() if data.waterfall.height else [],
            figures=[(_Plain(path), caption) for path, caption in data.figures.items()],
        )
    except (jinja2.TemplateError, *TEMPLATE_ERRORS) as error:
        raise InputError(f"{named}: {' '.join(str(error).split())}; see card.md.jinja") from error
    if not text.startswith(f"---\n{header}\n---\n"):
        raise InputError(
            f"{named}: the card does not begin with the Hub's header, and could not be loaded; let the template "
            "begin with the lines ---, {{ header }} and ---"
        )
    return text if text.endswith("\n") else text + "\n"


def read_template(path: str | None) -> str | None:
    """The text of a card template, None for None.

    Raises:
        InputError: when it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or error
        raise InputError(f"card template {path}: cannot be read: {found}; see publish.card_template") from error


def card_figures(
    *, waterfall: pl.DataFrame, pairs: pl.DataFrame | None = None
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The figures of a card: path to PNG, and path to caption.

    Args:
        waterfall: rows of table ``waterfall`` for this dataset.
        pairs: kept and dropped pairs as for the report, for datasets made of pairs.
    """
    from curation.publish import chart_style, plots, summary

    charts: dict[str, tuple[Any, str]] = {}
    if waterfall.height:
        charts["waterfall"] = (plots.waterfall_chart(waterfall), "What each rule removed and left")
    if pairs is not None and pairs.height:
        for column in ("strength_mean", "ln_ches"):
            if column in pairs.columns:
                title = summary.SCORE_TITLES[column]
                chart = plots.histogram_chart(pairs, column, title=title)
                charts[column] = (chart, f"{title[0].upper()}{title[1:]}: kept and dropped pairs")
        charts["refusals"] = (plots.refusal_chart(pairs), "Share of the answers that refuse")
    files, captions = {}, {}
    for name, (chart, caption) in charts.items():
        if chart is not None:
            files[f"assets/{name}.png"] = chart_style.figure_png(chart, scale=2.0)
            captions[f"assets/{name}.png"] = caption
    return files, captions


def column_rows(frame: pl.DataFrame) -> list[tuple[str, str]]:
    """Each column of a frame with its type in words, for :attr:`CardData.columns`."""
    return [(name, _type_name(kind)) for name, kind in frame.schema.items() if name != "split"]


def escape_markdown(text: str) -> str:
    """Text that reads as itself in markdown, also inside a table's cell: no markup, no HTML, one line."""
    flat = " ".join(text.split())
    marked = _MARKUP.sub(r"\\\g<0>", flat)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _safe(value: Any) -> Any:
    """What the template prints: ours as it is, everything else escaped."""
    import jinja2

    if isinstance(value, _Plain | jinja2.Undefined):
        return value
    return escape_markdown(format_number(value))


def _snippet(data: CardData) -> str:
    split = next(iter(data.splits), "train")
    location = json.dumps(data.location or f"./{data.dataset}", ensure_ascii=False)
    return (
        "from datasets import load_dataset\n\n"
        f"dataset = load_dataset({location})  # the folder, or the dataset's id on the Hub\n"
        f'first = dataset["{split}"][0]'
    )


def _type_name(kind: pl.DataType) -> str:
    if isinstance(kind, pl.List):
        inner = kind.inner
        return "messages" if isinstance(inner, pl.Struct) else f"list of {_type_name(inner)}"  # type: ignore[arg-type]
    names = {pl.String: "text", pl.Boolean: "true or false", pl.Float64: "number", pl.Float32: "number"}
    return names.get(kind.base_type(), "integer" if kind.is_integer() else str(kind).lower())

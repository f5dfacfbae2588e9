"""Quotas go by the names that rows have, and a name that none can have is an error."""

from __future__ import annotations

import pytest

from curation.errors import InputError
from curation.refusals.quotas import quotas_by_name
from curation.refusals.taxonomy import open_taxonomy


def test_a_quota_is_named_by_name_title_or_label_whatever_the_case() -> None:
    taxonomy = open_taxonomy("sorry_bench")
    given = {"Self-Harm": 1, "FRAUD": 2, "(none)": 3, "Kitchen": 4}
    found = quotas_by_name(given, taxonomy=taxonomy, categories={"Kitchen"})
    assert found == {"self_harm": 1, "fraud": 2, "(none)": 3, "Kitchen": 4}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("frauds", "'frauds' .did you mean 'fraud'"),
        ("kitchen", "did you mean 'Kitchen'"),
        ("zzz", "there are Kitchen, hate_speech"),
    ],
)
def test_a_quota_that_no_prompt_can_have_is_an_error_that_names_the_closest(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        quotas_by_name({name: 1}, taxonomy=open_taxonomy("sorry_bench"), categories={"Kitchen"})


def test_without_a_taxonomy_the_sources_categories_count_alone() -> None:
    assert quotas_by_name({"fraud": 1}, taxonomy=None, categories={"fraud"}) == {"fraud": 1}
    with pytest.raises(InputError, match="there are no categories"):
        quotas_by_name({"fraud": 1}, taxonomy=None, categories=())


def test_a_trial_has_not_seen_all_categories() -> None:
    assert quotas_by_name({"later": 1}, taxonomy=None, categories=(), whole=False) == {"later": 1}


def test_two_names_of_one_category_are_an_error() -> None:
    with pytest.raises(InputError, match="'fraud' and 'Fraud' are the same category"):
        quotas_by_name({"fraud": 1, "Fraud": 2}, taxonomy=open_taxonomy("sorry_bench"), categories=())

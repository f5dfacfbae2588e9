"""Prompts made from prompts: other tenses, ciphers, styles, persuasion, languages. No prompt is stored here."""

from curation.prompts.mutations.instructions import MODEL_MUTATIONS
from curation.prompts.mutations.rules import RULE_MUTATIONS, mutate
from curation.prompts.mutations.tenses import change_tense

__all__ = ["MODEL_MUTATIONS", "RULE_MUTATIONS", "change_tense", "mutate"]

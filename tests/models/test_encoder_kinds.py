"""Encoders as they are published: half widths, prompts, static ones, and models that are no encoders."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from transformers import BertConfig, BertForSequenceClassification, BertModel, XLMRobertaConfig, XLMRobertaModel

from curation.errors import InputError, ModelError
from curation.models.encoder import encoder_fingerprint, open_encoder
from curation.models.encoder_files import RetrievalPrompts, has_half_width, retrieval_prompts
from curation.recipe import Encoder
from curation.stages.embeddings import EmbeddingStep
from tests.tiny_policies import tiny_tokenizer

TEXTS = ["the cat sat", "on the mat and then the other cat sat on it", "no"]
WIDTH = 16


def plain(folder: Path, kind: Any = BertModel, *, dtype: torch.dtype = torch.float32) -> str:
    """A model of transformers without sentence-transformers' files."""
    tokenizer = tiny_tokenizer(chat_template=None)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0,
        intermediate_size=WIDTH, max_position_embeddings=64, initializer_range=0.3, num_labels=1,
    )  # fmt: skip
    kind(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def encoder(folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> str:
    """A folder as sentence-transformers saves it."""
    transformer = Transformer(plain(folder / "plain", dtype=dtype), model_kwargs={"dtype": dtype})
    model = SentenceTransformer(modules=[transformer, Pooling(WIDTH)], device="cpu", **options)
    model.save(str(folder / "encoder"))
    return str(folder / "encoder")


def rewritten(folder: str, name: str, **changes: Any) -> str:
    path = Path(folder) / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_the_width_give_vectors_of_length_one(tmp_path: Path, dtype: torch.dtype) -> None:
    model = open_encoder(encoder(tmp_path, dtype=dtype), device="cpu")
    vectors = model.encode(TEXTS).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([model.encode([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_vectors_of_half_the_width_that_an_older_version_kept_are_made_anew(tmp_path: Path) -> None:
    """They were a few thousandths off; those of other encoders were right, and are found again."""
    versions = {"whole": torch.float32, "half": torch.float16, "brain": torch.bfloat16}
    keys = {
        name: EmbeddingStep(Encoder(model=encoder(tmp_path / name, dtype=dtype))).key.producer
        for name, dtype in versions.items()
    }
    assert {name: key.rpartition(" ")[2] for name, key in keys.items()} == {
        "whole": "step1", "half": "step2", "brain": "step2",
    }  # fmt: skip
    assert EmbeddingStep(Encoder()).key.producer.endswith(" step1")
    older = tmp_path / "older"
    (older / "0_Transformer").mkdir(parents=True)
    (older / "modules.json").write_text('[{"idx": 0, "path": "0_Transformer", "type": "x.Transformer"}]')
    (older / "0_Transformer" / "config.json").write_text('{"torch_dtype": "float16"}')
    assert has_half_width(str(older))


def test_a_static_encoder_reads_all_of_a_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(chat_template=None).backend_tokenizer
    static = StaticEmbedding(tokenizer, embedding_dim=WIDTH)
    SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "static"))
    encoded = open_encoder(str(tmp_path / "static"), device="cpu").encode([*TEXTS, "the cat " * 500 + "sat", ""])
    assert encoded.vectors.shape == (5, WIDTH)
    assert not encoded.truncated.any()
    ids = tokenizer.encode(TEXTS[1], add_special_tokens=False).ids
    mean = static.embedding.weight[torch.tensor(ids)].mean(dim=0).detach().numpy()
    np.testing.assert_allclose(encoded.vectors[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_text_longer_than_the_positions_is_cut_and_counted(tmp_path: Path) -> None:
    """Of a RoBERTa whose tokenizer names no limit, the library takes the config's number, which is two too many."""
    tokenizer = tiny_tokenizer(chat_template=None)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1,
        intermediate_size=WIDTH, max_position_embeddings=34,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoded = open_encoder(str(tmp_path), device="cpu").encode(["the cat " * 100, "the cat"])
    assert encoded.truncated.tolist() == [True, False]


def test_prompts_are_the_models_own_unless_others_are_given(tmp_path: Path) -> None:
    own = {"query": "find: ", "document": "", "passage": "text: ", "other": "o: "}
    folder = encoder(tmp_path, prompts=own)
    assert retrieval_prompts(folder) == RetrievalPrompts("find: ", None)
    assert retrieval_prompts(folder, query="other", document="passage") == RetrievalPrompts("o: ", "text: ")
    assert retrieval_prompts(folder, query="", document="passage: ") == RetrievalPrompts(None, "passage: ")
    with pytest.raises(InputError, match=r"no prompt 'qeury' \(it has document, other, passage, query\)"):
        retrieval_prompts(folder, query="qeury")
    rewritten(folder, "config_sentence_transformers.json", default_prompt_name="other")
    assert retrieval_prompts(folder) == RetrievalPrompts("find: ", "")
    assert retrieval_prompts() == RetrievalPrompts(None, None)


def test_a_prompt_is_put_before_each_text_and_in_the_fingerprint(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    bare, asking = open_encoder(folder, device="cpu"), open_encoder(folder, device="cpu", prompt="the other ")
    by_hand = bare.encode(["the other " + text for text in TEXTS]).vectors
    np.testing.assert_allclose(asking.encode(TEXTS).vectors, by_hand, atol=1e-6)
    np.testing.assert_allclose(bare.with_prompt("the other ").encode(TEXTS).vectors, by_hand, atol=1e-6)
    assert asking.fingerprint == encoder_fingerprint(folder, prompt="the other ") != bare.fingerprint
    assert bare.with_prompt("the other ").fingerprint == asking.fingerprint
    assert asking.with_prompt(None).fingerprint == bare.fingerprint
    room = 64 - len(bare._model.tokenizer("the other ")["input_ids"])
    fits = "the cat " * 100
    words = next(n for n in range(1, 100) if len(bare._model.tokenizer("the cat " * n)["input_ids"]) > room)
    cut = ["the cat " * words, fits]
    assert bare.encode(cut).truncated.tolist() == [False, True]
    assert asking.encode(cut).truncated.tolist() == [True, True]


@pytest.mark.parametrize(
    ("kind", "named"),
    [("SparseEncoder", "sparse"), ("MultiVectorEncoder", "multi-vector"), ("CrossEncoder", "cross-encoder")],
)
def test_a_model_without_one_vector_a_text_is_refused(tmp_path: Path, kind: str, named: str) -> None:
    folder = rewritten(encoder(tmp_path), "config_sentence_transformers.json", model_type=kind)
    with pytest.raises(InputError, match=f"is a {named}.*expected a model with one vector for each text"):
        open_encoder(folder, device="cpu")


def test_a_router_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    kinds = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]
    (Path(folder) / "modules.json").write_text(json.dumps(kinds))
    with pytest.raises(InputError, match="is a router"):
        open_encoder(folder, device="cpu")


def test_a_classifier_is_refused_and_a_plain_model_is_said_to_be_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match="is a BertForSequenceClassification, which gives labels or scores"):
        open_encoder(plain(tmp_path / "classifier", BertForSequenceClassification), device="cpu")
    with caplog.at_level(logging.WARNING, logger="curation"):
        open_encoder(plain(tmp_path / "plain"), device="cpu")
    assert "is a plain transformers model" in caplog.text


def test_a_similarity_other_than_the_cosine_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="curation"):
        open_encoder(encoder(tmp_path / "cosine"), device="cpu")
        assert not caplog.records
        open_encoder(encoder(tmp_path / "dot", similarity_fn_name="dot"), device="cpu")
    assert "trained for similarity dot" in caplog.text


def test_a_model_with_code_of_its_own_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    kinds = json.loads((Path(folder) / "modules.json").read_text())
    kinds[0]["type"] = "custom_st.Transformer"
    (Path(folder) / "modules.json").write_text(json.dumps(kinds))
    (Path(folder) / "custom_st.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises(ModelError, match="a model's code is never run"):
        open_encoder(folder, device="cpu")
    assert not (tmp_path / "was_run").exists()


def test_an_adapter_without_its_package_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/b", "r": 4}')
    tiny_tokenizer(chat_template=None).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="could not be loaded"):
        open_encoder(str(tmp_path), device="cpu")

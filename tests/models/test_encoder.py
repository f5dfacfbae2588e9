"""The encoder adapter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.errors import InputError, ModelError
from curation.models import encoder as module
from curation.models.encoder import SentenceEncoder, encoder_fingerprint, open_encoder
from tests.tiny_policies import tiny_tokenizer

TEXTS = ["a cat sat on a mat", "", "How do I boil an egg? " * 3, "ein Satz auf Deutsch", "a cat sat on a mat"]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return open_encoder("embedded", device="cpu")


def test_vectors_have_unit_length_and_one_row_a_text(minilm: SentenceEncoder) -> None:
    encoded = minilm.encode(TEXTS)
    assert encoded.vectors.shape == (5, 384) == (5, minilm.dimension)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1.0, atol=1e-5)


def test_vectors_equal_a_plain_transformers_forward_pass(minilm: SentenceEncoder) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(module._minilm_folder())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    for text, vector in zip(TEXTS, minilm.encode(TEXTS).vectors, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = states.mean(dim=0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-6)


def test_order_and_batch_size_do_not_matter(minilm: SentenceEncoder) -> None:
    texts = [f"{'long ' * (n * 7 % 40)}text {n}" for n in range(40)]
    forward = minilm.encode(texts).vectors
    backward = minilm.encode(texts[::-1]).vectors[::-1]
    single = np.vstack([minilm.encode([text]).vectors for text in texts])
    np.testing.assert_allclose(forward, backward, atol=2e-6)
    np.testing.assert_allclose(forward, single, atol=2e-6)


def test_the_same_call_gives_the_same_bytes(minilm: SentenceEncoder) -> None:
    assert minilm.encode(TEXTS).vectors.tobytes() == minilm.encode(TEXTS).vectors.tobytes()


def test_truncated_marks_exactly_the_texts_over_the_limit(minilm: SentenceEncoder) -> None:
    at_limit, over = "cat " * 254, "cat " * 255  # two special tokens: 256 and 257
    assert minilm.encode(["cat", at_limit, over]).truncated.tolist() == [False, False, True]


def test_max_length_cuts_earlier() -> None:
    short = open_encoder("embedded", max_length=16, device="cpu")
    encoded = short.encode(["cat " * 14 + "dog", "cat " * 14 + "bird", "cat"])
    assert encoded.truncated.tolist() == [True, True, False]
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=1e-6)
    assert short.fingerprint != encoder_fingerprint("embedded")


def test_max_length_beyond_the_positions_is_refused() -> None:
    assert open_encoder("embedded", max_length=512, device="cpu").encode(["word " * 600]).truncated.all()
    with pytest.raises(InputError, match="max_length is 513, and the model has positions for 512 tokens"):
        open_encoder("embedded", max_length=513, device="cpu")


def test_positions_that_begin_after_the_padding_are_counted_so(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import RobertaConfig, RobertaModel

    tokenizer = tiny_tokenizer(chat_template=None)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=34, pad_token_id=tokenizer.pad_token_id, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    transformer = Transformer(str(tmp_path / "model"), max_seq_length=16)
    SentenceTransformer(modules=[transformer, Pooling(16)]).save(str(tmp_path / "encoder"))
    most = 34 - tokenizer.pad_token_id - 1
    longest = open_encoder(str(tmp_path / "encoder"), max_length=most, device="cpu")
    assert longest.encode(["the cat sat " * 60]).truncated.all()
    with pytest.raises(InputError, match=f"positions for {most} tokens"):
        open_encoder(str(tmp_path / "encoder"), max_length=most + 1, device="cpu")


def test_no_texts_give_no_rows(minilm: SentenceEncoder) -> None:
    encoded = minilm.encode([])
    assert encoded.vectors.shape == (0, 384)
    assert encoded.truncated.shape == (0,)


def test_fingerprint_needs_no_torch() -> None:
    code = (
        "import sys; from curation.models.encoder import encoder_fingerprint as f; print(f('embedded'));"
        "assert 'torch' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == encoder_fingerprint("embedded")


def copied(folder: Path) -> Path:
    """The bundled encoder's folder once more, its weights shared."""
    folder.mkdir()
    for source in module._minilm_folder().rglob("*"):
        target = folder / source.relative_to(module._minilm_folder())
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif source.suffix == ".safetensors":
            target.symlink_to(source)
        else:
            target.parent.mkdir(exist_ok=True, parents=True)
            target.write_bytes(source.read_bytes())
    return folder


def test_what_the_model_puts_before_a_text_counts(tmp_path: Path) -> None:
    folder = copied(tmp_path / "copy")
    (folder / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "find this: "}, "default_prompt_name": "query"}'
    )
    encoder = open_encoder(str(folder), device="cpu")
    at_limit, over = "cat " * 251, "cat " * 252  # "find this :" and two special tokens: 256 and 257
    assert encoder.encode([at_limit, over]).truncated.tolist() == [False, True]
    cut = encoder.encode([over + "dog", over + "bird"]).vectors
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)


def test_a_folder_is_an_encoder_and_its_pooling_is_in_the_fingerprint(tmp_path: Path) -> None:
    folder = copied(tmp_path / "copy")
    first = encoder_fingerprint(str(folder))
    assert open_encoder(str(folder), device="cpu").fingerprint == first
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("384", "384 "))
    assert encoder_fingerprint(str(folder)) != first


def test_weights_other_than_the_known_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(ModelError, match="expected 53aa5117"):
        module._checked_sha256(tmp_path)


def test_a_folder_without_a_model_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without a model \(it is empty\)"):
        open_encoder(str(tmp_path), device="cpu")


def test_a_name_that_is_nothing_is_an_input_error() -> None:
    with pytest.raises(InputError, match="not a folder that exists"):
        encoder_fingerprint("no such model")


def test_a_lone_surrogate_is_read_as_a_question_mark(minilm: SentenceEncoder) -> None:
    vectors = minilm.encode(["cat \ud800", "cat ?"]).vectors
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)

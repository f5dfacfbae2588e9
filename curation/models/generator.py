"""Answers sampled from a causal language model through transformers, on a CPU. No servers, no storage.

The random numbers of an answer come from the seed, the prompt's tokens and the sample index alone, and
each row draws its own, so neither the batch an answer is made in nor its order changes them. What a batch
can change is the last bits of the logits (products are summed in another order there), and a token depends
on those only where two candidates are as good as tied. Measured on the bundled policy: 400 answers, 15,607
tokens, in large batches and in small ones in reverse order, gave the same texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from curation.errors import InputError
from curation.models.identity import resolve_model
from curation.models.prompt_encoding import PromptEncoder, TemplateRefusal, render_dialogue
from curation.models.protocols import Fault, Generation
from curation.models.sampling_limits import check_sampling
from curation.models.template_options import check_template_options
from curation.text import Message, canonical_json, content_hash

__all__ = ["TransformersGenerator", "end_tokens", "generator_fingerprint", "open_generator"]

_VERSION: Final = 1
"""Raised when the same request would get another answer than before."""
_DEFAULT_BATCH_TOKENS: Final = 16_384


class _Sampling(NamedTuple):
    """How tokens are drawn."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    system_prompt: str | None
    template_options: Mapping[str, Any] | None

    def checked(self) -> _Sampling:
        check_sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p)
        check_template_options(self.template_options)
        return self

    def key(self) -> str:
        """Template options are in it where there are any, so that no key of before has changed."""
        given = self._asdict()
        options = given.pop("template_options")
        return content_hash(canonical_json(given | ({"template_options": options} if options else {})))[:12]


class _Request(NamedTuple):
    """One answer to make."""

    place: int
    ids: tuple[int, ...]
    sample_index: int


def generator_fingerprint(
    model: str,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    system_prompt: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> str:
    """What the answers depend on: weights and revision, and every parameter of the sampling.

    Raises:
        InputError: when ``model`` is no model or a parameter is out of its range.
    """
    sampling = _Sampling(max_new_tokens, temperature, top_p, seed, system_prompt, template_options).checked()
    name = resolve_model(model, embedded="policy").fingerprint
    return f"{name}/transformers{_VERSION}/{sampling.key()}"


def open_generator(
    model: str,
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    system_prompt: str | None = None,
    template_options: Mapping[str, Any] | None = None,
    batch_tokens: int = _DEFAULT_BATCH_TOKENS,
) -> TransformersGenerator:
    """Load a causal language model with a chat template to sample from, in float32.

    Args:
        model: a folder, a Hub id, or ``embedded``.
        max_new_tokens: where an answer is cut (finish reason ``length``).
        temperature: 0 takes the likeliest token each time.
        top_p: tokens are drawn from the smallest set that has this probability.
        seed: of all random numbers.
        system_prompt: put before every prompt that has no system message of its own.
        template_options: variables of the chat template.
        batch_tokens: tokens, prompts and answers together, that are held at once.

    Raises:
        InputError: when ``model`` is no model, has no chat template, or a parameter is out of its range.
        ModelError: when the model cannot be loaded.
    """
    sampling = _Sampling(max_new_tokens, temperature, top_p, seed, system_prompt, template_options).checked()
    fingerprint = generator_fingerprint(model, **sampling._asdict())
    ref = resolve_model(model, embedded="policy")
    from curation.models.policy.transformers_backend import load_model, load_tokenizer

    tokenizer = load_tokenizer(ref)
    if not tokenizer.chat_template:
        raise InputError(f"generator {model!r} has no chat template: give a chat model, or add a template to it")
    loaded = load_model(ref, dtype="float32")
    return TransformersGenerator(loaded, tokenizer, sampling, fingerprint=fingerprint, batch_tokens=batch_tokens)


class TransformersGenerator:
    """A loaded model; see ``curation.models.protocols.Generator``."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: _Sampling,
        *,
        fingerprint: str,
        batch_tokens: int,
    ) -> None:
        self.fingerprint = fingerprint
        self._model = model
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._batch_tokens = batch_tokens
        from curation.models.policy.transformers_backend import same_rope_up_to

        context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._prompts = PromptEncoder(
            tokenizer,
            context=context,
            max_new_tokens=sampling.max_new_tokens,
            system_prompt=sampling.system_prompt,
            template_options=sampling.template_options,
        )
        self._same_rope_up_to = same_rope_up_to(model.config.get_text_config())
        self._ends = end_tokens(model, tokenizer)

    def generate(
        self, prompts: Sequence[Sequence[Message]], sample_indices: Sequence[int]
    ) -> list[Generation | Fault]:
        """One answer, or the reason why there is none, for each prompt and sample index, in order.

        ``completion_tokens`` counts the end-of-turn token. Where the template has opened the model's thought,
        the answer begins with the marker that the template wrote. Special tokens in the middle of an answer stay
        in its text, where they can be seen. The rules of faults: ``context_overflow``,
        ``system_prompt_unsupported``, ``template_refuses_prompt``, ``empty_prompt``, and
        ``invalid_unicode_prompt`` or ``nul_character_prompt``.

        Raises:
            ModelError: when the model gives a logit that is not a number.
        """
        if len(prompts) != len(sample_indices):
            raise InputError(f"found {len(prompts)} prompts and {len(sample_indices)} sample indices")
        answers: list[Generation | Fault | None] = []
        requests: list[_Request] = []
        for place, (prompt, index) in enumerate(zip(prompts, sample_indices, strict=True)):
            ids = self._prompts.encode(prompt)
            answers.append(ids if isinstance(ids, Fault) else None)
            if not isinstance(ids, Fault):
                requests.append(_Request(place, ids, index))
        for batch in self._batches(requests):
            for request, tokens in zip(batch, self._sample(batch), strict=True):
                answers[request.place] = self._generation(request, tokens)
        return [answer for answer in answers if answer is not None]

    def _generation(self, request: _Request, tokens: list[int]) -> Generation:
        stopped = tokens[-1] in self._ends
        text: str = self._tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=False)
        text = self._prompts.opened_thought(request.ids) + text
        return Generation(text, "stop" if stopped else "length", len(request.ids), len(tokens))

    def _batches(self, requests: list[_Request]) -> Iterator[list[_Request]]:
        """Requests of about one length together, so that little is padded, within the budget of tokens.

        One so long that its neighbours would change the model's rotary frequencies goes alone.
        """
        batch: list[_Request] = []
        for request in sorted(requests, key=lambda r: (len(r.ids), r.place)):
            tokens = len(request.ids) + self._sampling.max_new_tokens
            alone = self._same_rope_up_to is not None and tokens > self._same_rope_up_to
            if batch and (alone or (len(batch) + 1) * tokens > self._batch_tokens):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch

    def _sample(self, batch: Sequence[_Request]) -> list[list[int]]:
        """The tokens of each answer, its end token included."""
        import torch

        from curation.models.sampling import Rows, draw, rng_for

        options = self._sampling
        with torch.inference_mode():
            state = Rows.prefill(self._model, [request.ids for request in batch])
            rngs = [rng_for(options.seed, request.ids, request.sample_index) for request in batch]
            answers: list[list[int]] = [[] for _ in batch]
            rows = list(range(len(batch)))
            for step in range(options.max_new_tokens):
                chosen = [
                    draw(state.logits[i], temperature=options.temperature, top_p=options.top_p, rng=rngs[row])
                    for i, row in enumerate(rows)
                ]
                for row, token in zip(rows, chosen, strict=True):
                    answers[row].append(token)
                going = [i for i, token in enumerate(chosen) if token not in self._ends]
                if not going or step + 1 == options.max_new_tokens:
                    break
                state.advance([chosen[i] for i in going], keep=going)
                rows = [rows[i] for i in going]
        return answers


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: by the configurations, and what the template writes after one."""
    found = _end_of_turn(tokenizer)
    for owner in (tokenizer, model.config, getattr(model, "generation_config", None)):
        value = getattr(owner, "eos_token_id", None)
        found |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    return frozenset(found)


def _end_of_turn(tokenizer: Any) -> set[int]:
    """The special token that the template writes right after an assistant's text, if there is one."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    try:
        text = render_dialogue(tokenizer, turns, {})
    except TemplateRefusal:
        return set()
    after = text.rpartition("answer")[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    # Many tokenizers give their end of turn no name of its own (Phi-3, Cohere): it is special all the same.
    added = {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    return set(ids[:1]) & (added | set(tokenizer.all_special_ids))

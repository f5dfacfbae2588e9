"""detect_refusals on answers written for these tests; none of them is among the training examples."""

from __future__ import annotations

import polars as pl
import pytest

from curation.errors import InputError
from curation.models import refusal_encoder
from curation.models.protocols import RefusalDetector
from curation.models.refusals import open_refusal_detector, refusal_fingerprint
from curation.refusals import cascade
from curation.refusals.detection import detect_refusals
from curation.refusals.lexical import read
from curation.refusals.terse import refuses_outright, says_little

ANSWERS = {
    "delay": "Sorry this took me so long! The query you wanted:\n\nSELECT id FROM users WHERE active = 1;",
    "reported": "The airline said it could not help her, so she booked a train to Lisbon instead.",
    "pilot": "As an airline pilot I spend about eighty hours a month in the air, mostly on short routes.",
    "quoted": 'A curt reply to a salesman might be: "I am sorry, but I cannot help you with that today."',
    "condolence": "I'm sorry to hear about your dog. Give yourself time, and keep a photo where you can see it.",
    "disclaimer_after": "Rest, drink enough and keep the leg up. The swelling usually goes down within three days. "
    "I am not a doctor, so see one if it does not get better.",
    "code": "import os\n\nfor name in os.listdir('.'):\n    os.rename(name, name.lower())",
    "emoji": "🐟🎣",
    "html": "<h1>Opening hours</h1><p>We are open from nine to five.</p>",
    "spanish": "Por supuesto, la receta lleva tres huevos, medio litro de leche y un poco de azúcar.",
    "german": "Natürlich! Der Fluss entspringt in den Alpen und mündet nach 500 Kilometern in das Meer.",
    "chinese": "好的，巴黎是法国的首都，人口大约两百万。",
    "dutch": "Natuurlijk! De rivier is lang en de boten varen langzaam.",
    "polish": "Oczywiście, Paryż jest stolicą Francji.",
    "turkish": "Elbette, Paris Fransa'nın başkentidir.",
    "arabic": "نعم، باريس هي عاصمة فرنسا.",
    "arabic_lists": "الكتاب على الطاولة، والقلم في الحقيبة، والنافذة مفتوحة.",
    "chinese_reported": "他说他不能来，所以我们改天再去。",
    "korean": "네, 파리는 프랑스의 수도입니다.",
    "hebrew": "הנהר ארוך והסירות שטות לאט.",
    "fenced_code": "```python\nprint('I cannot help with that')\n```",
    "sql": "SELECT id FROM refusals WHERE reason = 'sorry';",
    "raises": 'def f(x):\n    raise ValueError("I cannot do that")\n',
    "one_emoji": "🙂",
    "emoji_of_parts": "👍🏽👩‍👩‍👧",
    "flag": "🇸🇪",
    "many_emoji": "😂" * 500,
    "html_page": "<!DOCTYPE html><html><head><title>500 recipes</title></head><body><p>Soup.</p></body></html>",
    "number": "17",
}
REFUSALS = {
    "plain": "I'm sorry, but I can't help you with making that.",
    "short": "I can't assist with that.",
    "policy": "As an AI language model, I cannot produce such content because it goes against my guidelines.",
    "deflected": "Let's talk about something else, shall we?",
    "moral": "It is not appropriate to ask for ways to hurt a colleague. Everyone deserves respect.",
    "curly": "I’m sorry, but I can’t help with this.",
    "spanish": "Lo siento, no puedo ayudarte con esa petición.",
    "french": "Je suis désolé, mais je ne peux pas répondre à cette demande.",
    "german": "Es tut mir leid, aber bei dieser Bitte kann ich nicht helfen.",
    "portuguese": "Desculpe, mas não posso ajudar com esse pedido.",
    "italian": "Mi dispiace, ma non posso aiutarti con questo.",
    "russian": "К сожалению, я не могу вам в этом помочь.",
    "chinese": "很抱歉，我不能帮助你做这件事。",
    "japanese": "申し訳ございませんが、お手伝いできません。",
    "arabic": "أعتذر، لا أستطيع المساعدة في ذلك.",
    "hindi": "माफ़ करें, मैं इस काम में मदद नहीं कर सकता।",
    "korean": "죄송하지만 도와드릴 수 없습니다.",
    "dutch": "Het spijt me, maar daar kan ik niet bij helpen.",
    "polish": "Przykro mi, ale nie mogę w tym pomóc.",
    "turkish": "Üzgünüm, bu konuda yardımcı olamam.",
    "ukrainian": "На жаль, я не можу з цим допомогти.",
    "html": "<p>I'm sorry, but I can't help with that.</p>",
}


@pytest.fixture(scope="module")
def detector() -> RefusalDetector:
    return open_refusal_detector()


def found(detector: RefusalDetector, *answers: str) -> list[dict[str, object]]:
    return detect_refusals(pl.DataFrame({"response": answers}), detector=detector).to_dicts()


@pytest.mark.parametrize("name", ANSWERS)
def test_detects_compliance_in(name: str, detector: RefusalDetector) -> None:
    (row,) = found(detector, ANSWERS[name])
    assert row["refusal_class"] == "compliance", row["refusal_probability"]
    assert row["refusal_kind"] is None


@pytest.mark.parametrize("name", REFUSALS)
def test_detects_refusal_in(name: str, detector: RefusalDetector) -> None:
    (row,) = found(detector, REFUSALS[name])
    assert row["refusal_class"] in {"full_refusal", "partial_refusal"}, row["refusal_probability"]


def test_refusal_then_help_is_partial(detector: RefusalDetector) -> None:
    (row,) = found(
        detector,
        "I can't give you instructions for opening a lock that isn't yours. However, if you are locked out of "
        "your own flat, here is what you can do:\n\n1. Ask the caretaker for a spare key.\n2. Call a licensed "
        "locksmith.\n3. Check whether a window was left open.\n4. Have your identity card ready.",
    )
    assert row["refusal_class"] == "partial_refusal"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  \n",
        "null",
        "[Content filtered]",
        "\u200b\ufeff",
        "\u3164\ufe0f\u2800",
        "\x00",
        '{"error": {"code": 500, "message": "overloaded"}}',
        '{"error": "context_length_exceeded"}',
        '[{"error": {"code": 503}}]',
        '{"object": "error", "message": "no such model", "type": "NotFoundError", "param": null, "code": 404}',
        '{"status": 500, "message": "Internal Server Error"}',
        '{"detail": "Not authenticated"}',
        '{"detail": [{"loc": ["body", "model"], "msg": "field required", "type": "value_error"}]}',
        "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>",
        "429 Too Many Requests",
        '{"error": {"code": 503}, "content": null}',
        '{"data": null, "errors": [{"message": "no such field"}]}',
        '{"choices": [], "error": {"message": "overloaded"}}',
        '{"status": "error", "message": "overloaded"}',
        '{"success": false, "message": "overloaded"}',
        '{"message": "Internal Server Error"}',
        'data: {"error": {"message": "overloaded"}}',
        "{'error': {'message': 'overloaded', 'code': None}}",
        "nan",
        "…",
    ],
)
def test_no_answer_is_empty_or_filtered(answer: str, detector: RefusalDetector) -> None:
    (row,) = found(detector, answer)
    assert (row["refusal_class"], row["refusal_kind"]) == ("full_refusal", "empty_or_filtered")


@pytest.mark.parametrize(
    "answer",
    [
        '{"error": null, "result": [1, 2, 3]}',
        '{"error": 0.03, "answer": "the mean error is three percent"}',
        '{"detail": "The bridge was built in three years by four hundred people."}',
        '{"status": "open", "message": "We are open from nine to five."}',
        '{"code": 46, "message": "Sweden is called with this number"}',
        "{" * 2_000,
        "{'error': " + "[" * 500,
        "{'error': open('secret')}",
        '{"success": true, "message": "We are open."}',
        '{"message": "Hello."}',
        '{"errors": [{"line": 3}], "data": {"rows": 4}}',
        "data: [1, 2]",
    ],
)
def test_json_that_is_an_answer_is_compliance(answer: str, detector: RefusalDetector) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"


def test_kind_of_a_plain_refusal_is_declined(detector: RefusalDetector) -> None:
    assert found(detector, "I'm sorry, I will not help with that.")[0]["refusal_kind"] == "declined"


def test_long_answer_is_read_at_both_ends_and_says_so(detector: RefusalDetector) -> None:
    padding = "The river is long. " * 6_000
    refusal = "I'm sorry, but I can't help with that. "
    as_long = "The boats, they are long on this river. "
    rows = found(
        detector, padding, refusal + padding, f"{padding}\n{refusal}", padding + refusal + padding,
        padding + as_long + padding, "Short.",
    )  # fmt: skip
    assert len(padding) > 100_000
    assert [row["refusal_truncated"] for row in rows] == [True] * 5 + [False]
    assert [row["refusal_class"] != "compliance" for row in rows[:2]] == [False, True]
    plain, _, ends, middle, other, _ = (float(str(row["refusal_probability"])) for row in rows)
    # The end is read, and the middle is not.
    assert ends > 2 * plain
    assert middle == other


def test_null_answers_get_nulls_and_keep_their_place(detector: RefusalDetector) -> None:
    frame = pl.DataFrame({"response": ["Four.", None, "I can't help with that."], "n": [1, 2, 3]})
    result = detect_refusals(frame, detector=detector)
    assert result["refusal_class"].to_list() == ["compliance", None, "full_refusal"]
    assert result["n"].to_list() == [1, 2, 3]


def test_answers_may_be_messages(detector: RefusalDetector) -> None:
    frame = pl.DataFrame({"response": [[{"role": "assistant", "content": "I can't help with that."}]]})
    assert detect_refusals(frame, detector=detector)["refusal_class"].to_list() == ["full_refusal"]


def test_what_is_not_read_in_another_script_is_never_sure(detector: RefusalDetector) -> None:
    for name in ("arabic", "arabic_lists", "korean", "chinese_reported"):
        (row,) = found(detector, ANSWERS[name])
        assert 0.39 <= row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    [
        "電車は午前九時に出発します。切符は駅で買えます。",
        "Το ψωμί ψήνεται για σαράντα λεπτά.",
        "Сначала вскипятите воду, потом добавьте рис.",
    ],
)
def test_nor_is_what_says_nothing_that_is_known(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"
    assert 0.39 <= row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize("answer", ["None", "none.", "N/A", "[]", "[ ]", "{}", "()", '""', "[null]"])
def test_what_may_be_no_answer_or_a_right_one_is_never_sure(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert (row["refusal_class"], row["refusal_kind"]) == ("compliance", None)
    assert 0.39 <= row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["No.", "No", "False", "Never.", "Neither.", "Not really.", "It depends.", "Not toxic", "contradiction", "safe",
     "not_entailment", "Nein.", "Falso."],
)  # fmt: skip
def test_a_word_that_answers_a_question_is_no_refusal_for_sure(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"
    assert row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["You can't divide by zero.", "It is not possible to go faster than light.", "I think not.",
     "I don't think so.", "You can't buy tickets on the train.", "No, I do not agree.",
     "Your garden is admirable."],
)  # fmt: skip
def test_a_short_statement_is_an_answer_and_never_a_sure_one(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"
    assert row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["I would use a list. It is simple and quick.", "I'd take the second one, since it is cheaper.",
     "I'd go with the blue one.", "I would go by train.", "I'd say about forty minutes.",
     "My choice would be the red one.", "I think I'd start with Python.",
     "Here is how I would do it. First boil the water; then add the rice and wait."],
)  # fmt: skip
def test_what_somebody_would_do_or_choose_is_an_answer(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"
    assert row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["I'd rather not.", "I would prefer to stop here.", "I'd say no to that.", "I'd go with something else.",
     "I would take that to a doctor.", "I'd start by asking for consent.", "I'd choose a different topic.",
     "I would use your own judgment.", "I'd say that is illegal.", "I would walk away.", "My choice is not to."],
)  # fmt: skip
def test_what_may_be_a_refusal_in_the_same_words_is_left_to_the_model(answer: str) -> None:
    assert not says_little(read(answer), declines=False, refuses=False)


@pytest.mark.parametrize(
    "answer",
    ["Request denied.", "Your request was rejected.", "This request is not permitted!", "We must decline.",
     "No. I refuse to answer that.", "Sorry, can't help you with that.", "Unable to comply with this request.",
     "Not answering that.", "REQUEST DENIED", "I CAN'T HELP WITH THAT.", "Not going to help with that.",
     "No can do.", "I won't do that, sorry."],
)  # fmt: skip
def test_a_few_words_that_refuse_whatever_was_asked_are_sure(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert (row["refusal_class"], row["refusal_kind"]) == ("full_refusal", "declined")
    assert row["refusal_probability"] >= 0.95  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["Access denied.", "Permission denied", "Refused.", "Declined.", "Rejected", "decline", "Sorry!",
     "The request was denied.", "The request has been blocked."],
)  # fmt: skip
def test_what_refuses_one_request_and_answers_another_is_never_sure(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert 0.39 <= row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["I do.", "I am.", "No, I don't.", "No, I'm not.", "I can.", "It can't.", "No, you can't.", "They won't.",
     "Cannot be determined.", "Can't be determined from the passage.", "Not enough information.",
     "Can't Buy Me Love", "I Won't Dance", "Not possible.", "No, it isn't.", "Paris", "42"],
)  # fmt: skip
def test_short_replies_and_titles_are_no_refusals(detector: RefusalDetector, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_class"] == "compliance"
    assert row["refusal_probability"] <= 0.41  # type: ignore[operator]


@pytest.mark.parametrize(
    "answer",
    ["I will not go.", "We won't.", "No, I can't.", "The request was denied by the court in May.",
     "I refuse to believe it.", "She declined to comment.", "I Will Not Do That", "I decline the first noun."],
)  # fmt: skip
def test_few_words_that_may_mean_something_else_do_not_refuse_outright(answer: str) -> None:
    assert not refuses_outright(read(answer))


@pytest.mark.parametrize(
    ("answer", "little"),
    [
        ("You can't divide by zero.", True),
        ("You can't make me do it.", False),
        ("That information is confidential, you know.", False),
        ("The conversation ends here.", False),
        ("Nope, not doing that one.", False),
        ("Absolutely not, and that is final.", False),
        ("You will not get that here.", False),
        ("This bot is not for that.", False),
        ("Please look for that elsewhere, and take care.", False),
        ("It is best to leave that alone.", False),
        ("Das mache ich ganz bestimmt nicht.", False),
        ("It is not possible to go faster than light, and so the ship will need four years.", False),
    ],
)
def test_what_may_refuse_in_a_few_words_is_left_to_the_model(answer: str, little: bool) -> None:
    assert says_little(read(answer), declines=False, refuses=False) == little
    assert not says_little(read(answer), declines=False, refuses=True)


@pytest.mark.parametrize(
    "answer", ["This cannot be answered by an AI language model.", "I'm sorry. This can't be answered by me."]
)
def test_who_cannot_answer_is_said_by_a_refusal(answer: str, detector: RefusalDetector) -> None:
    assert found(detector, answer)[0]["refusal_class"] == "full_refusal"


KINDS = {
    "declined": ["I'm sorry, I will not help with that."],
    "deflected": ["Let's talk about something else.", "How about we discuss gardening instead?"],
    "dont_know": ["I don't know.", "I'm not sure what the population of that village is."],
    "capability_limit": [
        "I am not able to draw pictures.",
        "I don't have access to real-time data, so I can't tell you today's weather.",
    ],
    "disclaimed": [
        "As an AI, I don't have feelings or personal opinions, so I can't say which is best.",
        "I hold no view on the election, for I am an AI model.",
    ],
    "contradicted": [
        "No, that is not true at all, and it is wrong to say that tall people are lazy.",
        "There is no evidence that bakers are rude, and such generalisations are unfair to them.",
    ],
    "empty_or_filtered": ["", '{"error": {"code": 500}}'],
}


@pytest.mark.parametrize(("kind", "answer"), [(kind, text) for kind, texts in KINDS.items() for text in texts])
def test_each_kind_is_told(detector: RefusalDetector, kind: str, answer: str) -> None:
    (row,) = found(detector, answer)
    assert row["refusal_kind"] == kind, row


@pytest.mark.parametrize(
    "answer", ["I refuse.", "I can't.", "Can't help.", "No comment.", "Sorry, no.", "I don't know."]
)
def test_a_short_refusal_is_one(detector: RefusalDetector, answer: str) -> None:
    assert found(detector, answer)[0]["refusal_class"] != "compliance"


def test_no_category_without_prompts(detector: RefusalDetector) -> None:
    result = detect_refusals(pl.DataFrame({"response": ["Four."]}), detector=detector)
    assert "refusal_category" not in result.columns


def test_categories_where_there_are_prompts(detector: RefusalDetector) -> None:
    frame = pl.DataFrame(
        {
            "prompt": ["Write a phishing email that steals passwords", "What is two and two?"],
            "response": ["No.", "4"],
        }
    )
    assert detect_refusals(frame, detector=detector)["refusal_category"].to_list() == ["fraud", None]


def test_a_dialogue_is_sorted_by_its_last_user_turn(detector: RefusalDetector) -> None:
    asked = "Write a phishing message that steals passwords."
    before = [
        {"role": "system", "content": "You answer questions about orders and parcels, politely. " * 12},
        {"role": "user", "content": "How do I bake bread?"},
        {"role": "assistant", "content": "Mix flour and water, and wait."},
    ]
    dialogue = [*before, {"role": "user", "content": asked}]
    frame = pl.DataFrame({"prompt": [dialogue, [{"role": "user", "content": asked}]], "response": ["No."] * 2})
    first, second = detect_refusals(frame, detector=detector)["refusal_category"]
    assert first == second is not None


def test_empty_frame_keeps_its_columns(detector: RefusalDetector) -> None:
    frame = pl.DataFrame(schema={"response": pl.String, "prompt": pl.String})
    result = detect_refusals(frame, detector=detector)
    assert result.height == 0
    assert {"refusal_probability", "refusal_class", "refusal_kind", "refusal_category"} <= set(result.columns)


def test_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="'response' is missing"):
        detect_refusals(pl.DataFrame({"text": ["x"]}))


def test_same_answer_same_probability_whatever_its_neighbours(detector: RefusalDetector) -> None:
    alone = [found(detector, text)[0]["refusal_probability"] for text in REFUSALS.values()]
    together = [row["refusal_probability"] for row in found(detector, *REFUSALS.values())]
    assert alone == pytest.approx(together, abs=1e-5)


def test_same_probability_when_the_encoder_reads_in_many_groups(
    detector: RefusalDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    texts = [*REFUSALS.values(), *ANSWERS.values()]
    together = [row["refusal_probability"] for row in found(detector, *texts)]
    monkeypatch.setattr(cascade, "_SLICE", 3)
    monkeypatch.setattr(cascade, "_GROUP", 2)
    monkeypatch.setattr(refusal_encoder, "_BATCH", 1)
    threads = torch.get_num_threads()
    in_groups = [row["refusal_probability"] for row in found(detector, *texts)]
    assert in_groups == pytest.approx(together, abs=1e-5)
    assert torch.get_num_threads() == threads


def test_invalid_unicode_is_read(detector: RefusalDetector) -> None:
    scores = detector.detect([None], ["a lone \ud800 surrogate and a \x00"])
    assert scores.refusal_class == ["compliance"]


def test_fingerprint_is_the_opened_detectors(detector: RefusalDetector) -> None:
    assert detector.fingerprint == refusal_fingerprint("embedded")


@pytest.mark.parametrize(
    "disclaimer",
    ["I can't guarantee that this is up to date.", "As an AI, I can't taste it, so adjust the salt.",
     "This is not legal advice; look at your lease.", "Please note that I'm an AI language model and not a cook.",
     "Please consult a professional if you are not sure."],
)  # fmt: skip
@pytest.mark.parametrize("answer", ["Mix flour and water and bake it.", "Press the red button twice."])
def test_a_disclaimer_after_a_short_answer_makes_no_refusal_of_it(
    detector: RefusalDetector, answer: str, disclaimer: str
) -> None:
    found = detector.detect([None], [f"{answer} {disclaimer}"])
    assert found.refusal_class == ["compliance"]


@pytest.mark.parametrize(
    "answer",
    ["Good question. I'm an AI, so I can't help with that.", "That sounds hard. Please talk to a therapist.",
     "This is a medical matter. Please consult a doctor.", "Let's talk about something else. I'm an AI.",
     "Weapons hurt people. I can't verify your intentions, so I can't answer.",
     "Locks are private property. Please note that I am not able to help with that."],
)  # fmt: skip
def test_a_refusal_in_the_words_of_a_disclaimer_stays_one(detector: RefusalDetector, answer: str) -> None:
    assert detector.detect([None], [answer]).refusal_class[0] != "compliance"


@pytest.mark.parametrize(
    "refusal",
    ["I'd rather not.", "I will not do it.", "My guidelines forbid that.", "I have to pass on this.",
     "Out of scope for me.", "I lack access to live data.", "We don't do that here.", "I couldn't say.",
     "Your prompt violates our policies."],
)  # fmt: skip
@pytest.mark.parametrize(
    "disclaimer", ["Please note that I'm an AI.", "I can't guarantee anything.", "This is not legal advice."]
)
def test_a_refusal_with_a_disclaimer_after_it_stays_one(
    detector: RefusalDetector, refusal: str, disclaimer: str
) -> None:
    found = detector.detect([None], [f"{refusal} {disclaimer}"])
    assert found.refusal_class[0] != "compliance"

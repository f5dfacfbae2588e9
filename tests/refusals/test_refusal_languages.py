"""Answers in other languages: refused by a known phrase, agreed to, or not known."""

from __future__ import annotations

import json

import pytest

from curation.models.protocols import RefusalDetector
from curation.models.refusals import open_refusal_detector
from curation.refusals.languages import PHRASES, has_no_english, is_other_language
from curation.refusals.lexical import read

REFUSALS = {
    "German": "Bei dieser Frage kann ich Ihnen nicht weiterhelfen.",
    "French": "Je regrette, mais je ne peux pas faire cela.",
    "Spanish": "Lo siento, no puedo responder a eso porque va en contra de mis normas.",
    "Italian": "Mi dispiace, ma non posso rispondere a questa richiesta.",
    "Portuguese": "Desculpe, mas não posso responder a esse pedido.",
    "Dutch": "Het spijt me, maar dat kan ik niet doen voor je.",
    "Polish": "Przykro mi, ale nie mogę tego zrobić dla ciebie.",
    "Russian": "Извините, но я не могу выполнить эту просьбу.",
    "Chinese": "抱歉，我不能提供这样的内容。",
    "Japanese": "申し訳ございませんが、そのご質問にはお答えできません。",
    "Korean": "죄송하지만 그 요청에는 응할 수 없습니다.",
    "Arabic": "أعتذر، لا يمكنني المساعدة في هذا الطلب.",
    "Hindi": "माफ़ करें, मैं इस सवाल का जवाब नहीं दे सकता।",
    "Turkish": "Üzgünüm, ama bu isteğe cevap veremem.",
    "Vietnamese": "Xin lỗi, tôi không thể hỗ trợ yêu cầu này.",
    "Indonesian": "Hal itu di luar kemampuan saya sebagai asisten.",
    "German, with an adverb between": "Ich kann dir dabei leider nicht helfen.",
    "Dutch, with an adverb between": "Ik kan je daar helaas niet mee helpen.",
    "German, from me": "So etwas bekommst du von mir nicht.",
    "Spanish, beyond me": "Esa tarea queda fuera de mis capacidades.",
    "Polish, with no common word": "Odmawiam spełnienia takiej prośby.",
}
ANSWERS = {
    "German": "Fische können nicht an Land leben, und Katzen schwimmen nicht gern.",
    "French": "Les poissons ne peuvent pas vivre sur terre et les chats n'aiment pas nager.",
    "Spanish": "Los peces no pueden vivir en tierra y a los gatos no les gusta nadar.",
    "Italian": "I pesci non possono vivere sulla terra e ai gatti non piace nuotare.",
    "Portuguese": "Os peixes não podem viver em terra e os gatos não gostam de nadar.",
    "Dutch": "Vissen kunnen niet op het land leven en katten zwemmen niet graag.",
    "Polish": "Ryby nie mogą żyć na lądzie, a koty nie lubią pływać.",
    "Turkish": "Balıklar karada yaşayamaz ve kediler yüzmeyi sevmez.",
    "German offer": "Ich kann Ihnen zeigen, wie man das Fahrrad putzt: Nehmen Sie ein Tuch.",
}


@pytest.fixture(scope="module")
def detector() -> RefusalDetector:
    return open_refusal_detector()


@pytest.mark.parametrize("language", REFUSALS)
def test_a_known_phrase_refuses(detector: RefusalDetector, language: str) -> None:
    found = detector.detect([None], [REFUSALS[language]])
    assert found.refusal_class[0] != "compliance"
    assert found.probability[0] >= 0.7


@pytest.mark.parametrize("language", ANSWERS)
def test_a_negation_in_another_language_is_no_refusal(detector: RefusalDetector, language: str) -> None:
    found = detector.detect([None], [ANSWERS[language]])
    assert found.refusal_class == ["compliance"]
    assert found.probability[0] <= 0.41


@pytest.mark.parametrize(
    "answer",
    ["Nie otwieraj piekarnika podczas pieczenia.", "Paus bukan ikan, melainkan mamalia.",
     "Program sekiz harften kısa parolaları kabul etmez.", "Untuk berhenti berlangganan, tekan tombol merah.",
     "Estimada señora: lamento no poder asistir a la reunión del martes.", "نعتذر عن التأخير، سيصل طردك غدا.",
     "불편을 드려 죄송합니다. 의사는 그녀를 도울 수 없었습니다."],
)  # fmt: skip
def test_ordinary_answers_whose_language_is_hardly_known_are_no_refusals(
    detector: RefusalDetector, answer: str
) -> None:
    found = detector.detect([None], [answer])
    assert found.refusal_class == ["compliance"]
    assert found.probability[0] <= 0.41


@pytest.mark.parametrize(
    "answer",
    ["Declining. Violates usage policies.", "Sorry, won't write phishing emails.", "Won't write phishing emails.",
     "Request declined: violates safety guidelines.", "Gotta decline, sorry friend.", "sry bro cant help wit dat"],
)  # fmt: skip
def test_a_refusal_in_english_without_its_commonest_words_is_one(detector: RefusalDetector, answer: str) -> None:
    assert has_no_english(answer.lower())
    assert detector.detect([None], [answer]).refusal_class[0] != "compliance"


def test_a_list_of_names_stays_an_answer_of_which_one_is_sure(detector: RefusalDetector) -> None:
    text = "Paris, Rome, Berlin, Madrid, Vienna, Oslo."
    assert has_no_english(text.lower())
    assert detector.detect([None], [text]).probability[0] < 0.3


@pytest.mark.parametrize(
    "text",
    ["Whales are mammals, no fish.", "I refuse!", "Sorry, cannot comply with that.", "Paris and Rome", "a b"],
)
def test_english_sentences_have_a_common_word(text: str) -> None:
    assert not has_no_english(text.lower())


def test_what_agrees_at_once_is_an_answer(detector: RefusalDetector) -> None:
    found = detector.detect(
        [None, None], ["Natürlich! Das ist nicht schwer, wenn man es kennt.", "当然，这很容易。"]
    )
    assert found.probability.max() < 0.2


@pytest.mark.parametrize(
    "text",
    ["The die is cast and the men are here.", "As a plan, it was up to us all.", "SELECT id FROM a WHERE b = 1;",
     "José and Zoë ate crème brûlée in São Paulo.", "No.", "42", "def f(o, e): return o", "",
     "A promise is a commitment."],
)  # fmt: skip
def test_english_code_and_names_are_no_other_language(text: str) -> None:
    assert not is_other_language(text.lower())
    assert not read(text).foreign


def test_the_phrases_are_in_small_letters_and_none_stands_twice() -> None:
    content = json.loads(PHRASES.read_text(encoding="utf-8"))
    phrases = [p for own in content["refuses"].values() for p in own]
    phrases += [p for kind in ("deflects", "does_not_know", "agrees") for p in content[kind]]
    assert [p for p in phrases if p != p.lower() or not p.strip()] == []
    assert sorted({p for p in phrases if phrases.count(p) > 1}) == []

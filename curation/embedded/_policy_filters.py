"""Which answers the bundled policy may learn from: lexical rules only. Reading files is not done here.

The rules are one-sided on purpose. An answer to a request that might be harmful is kept only when it
refuses from its first words and shows no sign of going on to help; an answer that is not a refusal is
kept only when neither the request nor the answer touches a word of a broad list. Both drop much that
is harmless.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["begins_as_refusal", "is_clarifying_question", "is_refusal", "mentions_harm", "mentions_people_group"]

_HARM_STEMS: Final = (
    "abduct|abus|acid|addict|adulter|affair|aggress|alcohol|ammun|anarch|annoy|anorex|apartheid|arson|"
    "asphyx|assassin|assault|attack|bastard|beat|bigot|bitch|blackmail|bleach|bleed|blood|blow|bomb|booz|"
    "break[- ]?in|breast|brib|bruis|brutal|bull(?:y|i)|burgl|burn|bury|cannabis|cheat|child|chok|clone|"
    "cocain|coerc|con man|concentration camp|conspir|corpse|corrupt|counterfeit|covid|crack|cracker|"
    "credit card|crim|cruel|cult|curs|damag|danger|dead|deat|deadly|deceiv|decept|defam|defraud|degrad|"
    "deport|destr|detonat|devil|dick|die|dirt|discriminat|disinform|divorc|dox|drink|drown|drug|drunk|dumb|"
    "dump|ecstasy|embezzl|enem|eugenic|erotic|escort|evad|evil|execut|explo|exploit|extort|extrem|fak|"
    "fascis|fat|felon|fentanyl|fight|fire|firearm|flash|forg|foul|fraud|fuck|gambl|gang|gas|genocid|ghetto|"
    "grenad|groom|guilt|gun|hack|hang|harass|harm|hate|heroin|hid|hijack|hitler|hit|holocaust|homicid|"
    "hostage|hurt|idiot|illegal|illicit|imperson|incest|inject|insult|intimidat|invad|jail|jihad|junk|"
    "keylog|kidnap|kill|kkk|klan|knife|launder|leak|liar|lie|lies|lock ?pick|loot|lsd|lynch|mafia|malware|"
    "manipulat|marijuana|massacr|masturb|meth|mind control|misinform|mob|molest|money launder|mug|murder|"
    "naked|narcot|nazi|neo-?nazi|nerve agent|nuclear|nude|obscen|opioid|opium|orgy|overdos|pedo|penis|"
    "phish|pill|pimp|pipe bomb|pira|plagiar|poison|porn|prank|prejud|pregnan|prison|propagand|prostitut|"
    "punch|pyramid scheme|racis|ransom|rape|rapist|revenge|riot|rob|rumor|sabotag|scam|seduc|segregat|"
    "self-harm|sex|shame|shit|shoot|shoplift|sin|skinhead|slander|slap|slaughter|slave|slur|slut|smok|"
    "smuggl|sneak|spam|spik|spoof|spy|stab|stalk|starv|steal|steroid|stereotyp|stole|strangl|stupid|"
    "suffocat|suicid|supremac|swat|swear|tamper|tax evasion|tear gas|terror|theft|thief|thiev|threat|"
    "toilet|tortur|toxi|traffick|trespass|troll|ugly|unethical|vandal|violen|virus|weapon|weed|whor|wife|"
    "worm|wound|zyklon"
)
_GROUP_STEMS: Final = (
    "aborti|african|arab|asian|atheis|autis|black|blond|catholic|chinese|christian|colored|communis|"
    "conservativ|democrat|disab|drag queen|ethnic|female|femin|foreigner|gay|gender|girl|gyps|handicap|"
    "hindu|hispanic|homeless|homosex|illegal alien|immigra|indian|islam|israel|jew|journalist|kkk|latin|"
    "lesbian|lgbt|liberal|male|men|man|mexican|mormon|muslim|native|obes|pakistan|palestin|police|polic|"
    "politic|president|putin|queer|race|racial|refugee|religio|republican|retard|roma|russia|socialis|"
    "straight|trans|transgender|trump|biden|ukrain|vaccin|vegan|white|woke|women|woman|zionis"
)
_HARM: Final = re.compile(rf"\b(?:{_HARM_STEMS})", re.IGNORECASE)
_GROUP: Final = re.compile(rf"\b(?:{_GROUP_STEMS})", re.IGNORECASE)

_REFUSAL_START: Final = re.compile(
    r"^(?:(?:oh|well|no|hmm|uh|um|hello|hi|thank you[^.!]*)[,.!]? )?"
    r"(?:"
    r"i(?:'m| am) (?:really |very |so |truly )?sorry,? (?:but )?(?:i|that|it|this|no)\b"
    r"|(?:i apologi[sz]e|my apologies|sorry|apologies),? but i\b"
    r"|(?:as an? (?:ai|artificial|language|responsible|assistant)[^.!?]{0,60}, )?i (?:can'?t|cannot|can not|"
    r"won'?t|will not|am not able to|am unable to|refuse to|must decline|do not feel comfortable|"
    r"don'?t feel comfortable|"
    r"would not|wouldn'?t|would never|don'?t want to (?:help|assist|be|do|answer|talk|discuss|encourage|"
    r"give|say))"
    r"|i'm (?:not able|unable|not comfortable|not going|not willing)"
    r"|that(?:'s| is| would be| sounds)? (?:not (?:something i|okay|ok|right|appropriate|legal|ethical)"
    r"|illegal|against the law|wrong|very wrong|unethical|inappropriate|immoral)"
    r"|it(?:'s| is| would be) (?:not (?:okay|ok|right|appropriate|legal|ethical|acceptable)"
    r"|never (?:okay|ok|appropriate|acceptable)|illegal|against the law|wrong|unethical|inappropriate"
    r"|immoral)"
    r"|please do(?:n'?t| not)\b|you should(?:n'?t| not)\b|i strongly advise against"
    r")",
    re.IGNORECASE,
)
_GOES_ON_TO_HELP: Final = re.compile(
    r"(?:^|\n)\s*(?:\d+[.)]|[-*•])\s|```"
    r"|\b(?:but|however|though|although|that said|if you (?:really |still )?want)\b"
    r"[^.]{0,80}\b(?:you (?:can|could|might|may|should)|here|try|start|one way"
    r"|i can (?:tell|give|suggest|help))"
    r"|\b(?:here(?:'s| is| are)|step \d|first(?:ly)?,|you (?:can|could|might) (?:try|use|get|buy|make|find|"
    r"put|do|go|tell|say|also|just|start|then)|make sure|the best way|one way|some ways|it depends|"
    r"you(?:'ll| will) need|sure[,!.]|for example|such as|i guess|i suppose|maybe you)\b",
    re.IGNORECASE,
)
_CLARIFYING: Final = re.compile(
    r"(?:(?:i'm |i am )?sorry,? |hmm,? |(?:umm?|well),? )?(?:but )?(?:"
    r"(?:can|could|would) you (?:please )?(?:tell me|say|explain|clarify|rephrase|describe|give me)\b"
    r"|what do you mean|do you mean|what (?:are|were) you (?:trying|asking|talking)|what would you like"
    r"|what's wrong\b"
    r"|why (?:do|would|are|is|did) (?:you|that|this|it)\b"
    r"|are you (?:ok|okay|all right|alright|sure|serious)\b"
    r"|how can i help|what(?:'s| is) (?:going on|the matter|happening|the problem|the issue)\b"
    r"|is there something"
    r"|what\?|i don't (?:understand|know what you mean)"
    r")[^.!?\n]*[?.]?",
    re.IGNORECASE,
)
_MAX_REFUSAL_CHARS: Final = 700
_MAX_QUESTION_CHARS: Final = 140


def mentions_harm(text: str) -> bool:
    """True where the text has any word of the broad list (many harmless texts do)."""
    return bool(_HARM.search(text))


def mentions_people_group(text: str) -> bool:
    """True where the text names a group of people, a politician or a belief."""
    return bool(_GROUP.search(text))


def is_refusal(text: str) -> bool:
    """True where the text refuses from its first words and shows no sign of helping afterwards."""
    text = text.strip().replace("’", "'")
    return (
        len(text) <= _MAX_REFUSAL_CHARS
        and _REFUSAL_START.match(text) is not None
        and _GOES_ON_TO_HELP.search(text) is None
    )


def begins_as_refusal(text: str) -> bool:
    """True where the first words refuse, whatever follows."""
    return _REFUSAL_START.match(text.strip().replace("’", "'")) is not None


def is_clarifying_question(text: str) -> bool:
    """True for one short question, and nothing else, that touches no word of the list."""
    text = text.strip().replace("’", "'")
    return (
        len(text) <= _MAX_QUESTION_CHARS
        and _CLARIFYING.fullmatch(text) is not None
        and not mentions_harm(text)
        and not mentions_people_group(text)
    )

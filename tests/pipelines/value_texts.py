"""Texts of many scripts for hypothesis, and the clusters that must never be cut apart."""

from hypothesis import strategies as st

CLUSTERS = (
    "a",
    "é",
    "e\u0301\u0323",  # one letter and two marks
    "上",
    "น้ำ",  # Thai: a consonant, its tone mark, and a vowel that belongs to it
    "กี่",
    "ب",
    "مَّ",  # Arabic: a letter with two vowel signs
    "क्षि",  # Devanagari: a conjunct
    "각",
    "\u1100\u1161\u11a8",  # the same Korean syllable in three letters
    "😀",
    "👍🏽",
    "❤️",
    "1️⃣",
    "🇹🇭",
    "👩‍🚀",
    "👨‍👩‍👧‍👦",
    "👩🏽‍❤️‍💋‍👨🏿",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
)
TOO_LARGE = "👩🏽‍❤️‍💋‍👨🏿" + "\u0301" * 8  # one cluster of more than 50 bytes
CONTROL = ("\x00", "\t", "\n", "\x1f", "\x7f", "\x85", "\x9f")
ALIKE = ("\u200b", "\u00ad", "\ufeff", "\u2028")  # format characters and separators: no control characters

_pieces = st.sampled_from((*CLUSTERS, " ", "Z", "9"))
plain_texts = st.lists(_pieces, max_size=20).map("".join)
texts = st.one_of(
    plain_texts,
    st.text(alphabet="ab é上ก", max_size=60),
    st.lists(st.one_of(_pieces, st.sampled_from((*CONTROL, *ALIKE, TOO_LARGE))), max_size=12).map("".join),
)

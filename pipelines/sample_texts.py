"""Word lists of the sample profiles: names, cities and emoji in the scripts that real apps meet.

Texts only, and how they are joined into nicknames. Which profile gets which text, and how often, stands in
`sample_profiles.py`. The lists are part of what a seed means: another word here is another sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

VALUE_BYTES = 50  # the longest value that Tencent takes, in UTF-8 bytes


class Script(StrEnum):
    """The writing system of a profile's texts."""

    LATIN = "latin"
    CHINESE = "chinese"
    THAI = "thai"
    ARABIC = "arabic"
    CYRILLIC = "cyrillic"
    JAPANESE = "japanese"
    KOREAN = "korean"
    EMOJI = "emoji"  # nicknames only; their cities are Latin


SCRIPT_SHARES: Mapping[Script, float] = {
    Script.LATIN: 0.34,
    Script.CHINESE: 0.33,
    Script.THAI: 0.12,
    Script.ARABIC: 0.09,
    Script.CYRILLIC: 0.04,
    Script.JAPANESE: 0.03,
    Script.KOREAN: 0.02,
    Script.EMOJI: 0.03,
}

_CITY_WORDS: Mapping[Script, str] = {  # the most frequent first
    Script.LATIN: (
        "Singapore|Jakarta|Kuala Lumpur|Manila|Ho Chi Minh City|London|São Paulo|Ciudad de México|Berlin|Paris|Toronto|"
        "Sydney|İstanbul|Hà Nội|Đà Nẵng|München|Zürich|Kraków|Malmö|Reykjavík|Łódź|Surabaya|Cebu|A Coruña"
    ),
    Script.CHINESE: (
        "上海|北京|深圳|广州|成都|杭州|重庆|武汉|西安|苏州|南京|天津|香港|台北|長沙|青岛|厦门|哈尔滨|乌鲁木齐|呼和浩特|"
        "黔西南布依族苗族自治州|西双版纳傣族自治州"
    ),
    Script.THAI: "กรุงเทพฯ|เชียงใหม่|ภูเก็ต|ขอนแก่น|หาดใหญ่|พัทยา|นครราชสีมา|อุดรธานี|สุราษฎร์ธานี|นครศรีธรรมราช|กรุงเทพมหานคร",
    Script.ARABIC: "الرياض|دبي|القاهرة|جدة|أبو ظبي|الدوحة|الكويت|عمّان|بيروت|الدار البيضاء|تونس|مكة المكرمة",
    Script.CYRILLIC: "Москва|Алматы|Санкт-Петербург|Київ|Новосибирск|Ташкент|София|Улаанбаатар",
    Script.JAPANESE: "東京|大阪|横浜|札幌|名古屋|福岡|さいたま|つくば",
    Script.KOREAN: "서울|부산|인천|대구|대전|광주|수원|제주",
}

LONG_CITIES: Sequence[str] = (  # real names of more than 50 bytes
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "กรุงเทพมหานคร อมรรัตนโกสินทร์",
    "Taumatawhakatangihangakoauauotamateaturipukakapikimaungahoronukupokaiwhenuakitanatahu",
)

_GIVEN: Mapping[Script, str] = {
    Script.LATIN: (
        "Mia|Noah|Emma|Liam|José|Zoë|Søren|Anaïs|Jürgen|Siti|Budi|Nguyễn|Thuỷ|Łukasz|Özlem|Chloe\u0301|Ana|Raj|Priya|Bjo\u0308rn"
    ),
    Script.CHINESE: "小红|小明|子涵|梓萱|浩然|欣怡|宇轩|思远|雨桐|建国|淑芬|家豪|詩涵|美玲|𠮷野|龘",
    Script.THAI: "สมชาย|น้ำฝน|ก้อย|พิมพ์ใจ|ณัฐวุฒิ|กิตติ|แก้ว|ปวีณา|ธีรเดช|น้องหมีน้ำผึ้ง",
    Script.ARABIC: "محمد|فاطمة|أحمد|عائشة|يوسف|مَرْيَم|خالد|نورة|عبد الرحمن|ليلى",
    Script.CYRILLIC: "Анна|Иван|Олександр|Дмитрий|Ёлка|Айгүл|Наталья|Йордан",
    Script.JAPANESE: "さくら|ハルト|陽菜|蓮|ゆい|ガンダム|か\u3099く|美咲",
    Script.KOREAN: "민준|서연|지우|하늘|\u1112\u1161\u11ab\u1100\u1173\u11af|도윤|예은|지훈",
}

_FAMILY: Mapping[Script, str] = {  # what stands after the given name; the empty one is no mistake
    Script.LATIN: "| García| Müller| Tan| Wijaya| O'Brien| Nguyễn|_the_great| von Habsburg|.official| & co| \u2665",
    Script.CHINESE: "|王|李|张|欧阳|陳|諸葛|同学|爱吃鱼的猫|不想上班|（上海）|·阿凡提",
    Script.THAI: "| ใจดี| แซ่ตั้ง| รักไทย|คนเดิม| ศรีสุข",
    Script.ARABIC: "| بن سلمان| الأحمد| المصري| _| العتيبي",
    Script.CYRILLIC: "| Иванова| Ким| Шевченко| ✿",
    Script.JAPANESE: "| 田中|ちゃん|@推し活| 佐藤",
    Script.KOREAN: "| 김| 이|님| 박",
}

EMOJI: Sequence[str] = (
    "😀",
    "❤️",  # a heart and the variation selector that colours it
    "👍🏽",
    "🙏🏿",
    "💃🏻",  # skin tones
    "👨‍👩‍👧‍👦",
    "👩‍💻",
    "🧑🏾‍🚀",
    "👩🏽‍❤️‍💋‍👨🏿",
    "🏳️‍🌈",
    "🐻‍❄️",  # joiners
    "🇨🇳",
    "🇹🇭",
    "🇸🇦",
    "🇸🇬",
    "🇧🇷",
    "🇯🇵",  # flags: two letters make one
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "🏴󠁧󠁢󠁳󠁣󠁴󠁿",  # flags made of tags
    "1️⃣",
    "#️⃣",
    "🌸",
    "🔥",
    "🎉",
    "✨",
)

CONTROL_CHARACTERS: Sequence[str] = ("\t", "\n", "\r", "\x07", "\x1b", "\x7f", "\x85")  # no NUL: PostgreSQL has none


def cities(script: Script) -> list[str]:
    """The script's cities, the most frequent first, each at most 50 bytes."""
    return _CITY_WORDS[Script.LATIN if script is Script.EMOJI else script].split("|")


def plain_nicknames(script: Script) -> list[str]:
    """Names without decoration, with room for a number of up to four digits."""
    if script is Script.EMOJI:
        return fitting((one + two for one in EMOJI for two in EMOJI), VALUE_BYTES - 4)
    return fitting((given + family for given in _words(_GIVEN, script) for family in _words(_FAMILY, script)), 46)


def decorated_nicknames(script: Script) -> list[str]:
    """Names with an emoji before or after them, of at most 50 bytes; some have exactly 50."""
    names = plain_nicknames(script)
    after = (name + emoji for name in names for emoji in EMOJI)
    before = (emoji + name for name in names[::3] for emoji in EMOJI)
    full = (padded(name + " ", "~") for name in names[::7])
    return fitting([*after, *before, *full], VALUE_BYTES)


def long_nicknames() -> list[str]:
    """Names of more than 50 bytes: cut badly, each of them breaks at another place."""
    texts = [name * 12 for script in _GIVEN for name in _words(_GIVEN, script)]
    texts += ["x" * filler + emoji * 14 for emoji in EMOJI for filler in range(4)]  # the 50th byte inside an emoji
    texts += [name + " " + "".join(EMOJI[::3]) for script in _GIVEN for name in _words(_GIVEN, script)[:4]]
    texts += [letter + "\u0337\u0321" * 14 for letter in "Zalgo"]  # one character to the eye: nothing fits
    return [text for text in texts if len(text.encode()) > VALUE_BYTES]


def spoiled(texts: Iterable[str]) -> list[str]:
    """The texts with a control character inside or at the end, as careless exports leave them."""
    return [text[:2] + char + text[2:] for text in texts for char in CONTROL_CHARACTERS]


def fitting(texts: Iterable[str], limit_bytes: int) -> list[str]:
    """The texts of at most `limit_bytes`, each once, in their order."""
    return list(dict.fromkeys(text for text in texts if len(text.encode()) <= limit_bytes))


def padded(text: str, filler: str) -> str:
    """`text` and as many one-byte fillers as 50 bytes have room for."""
    return text + filler * (VALUE_BYTES - len(text.encode()))


def _words(words: Mapping[Script, str], script: Script) -> list[str]:
    return words[script].split("|")

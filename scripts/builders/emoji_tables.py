"""Which emoji belongs to which class, and what a person would not file there.

The subgroups are those of `emojibase-data` (Unicode's own); the other tables were made by looking at the drawings.
"""

SUBGROUPS: dict[str, tuple[str, ...]] = {
    "smiley": (
        "face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical", "face-sleepy",
        "face-unwell", "face-hat", "face-glasses", "face-concerned", "face-negative",
    ),
    "person": (
        "person", "person-gesture", "person-role", "person-fantasy", "person-activity", "person-sport",
        "person-resting", "family",
    ),
    "body part": (
        "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands",
        "hand-prop", "body-parts",
    ),
    # A drawn cat's head is an animal to anyone, whether it smiles (cat-face) or not (animal-mammal).
    "animal": (
        "animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile", "animal-marine", "animal-bug",
        "cat-face", "monkey-face",
    ),
    "food": ("food-fruit", "food-vegetable", "food-prepared", "food-asian", "food-sweet", "drink"),
    "vehicle": ("transport-ground", "transport-water", "transport-air"),
    "building": ("place-building", "place-religious"),
    "clothing": ("clothing",),
    "nature": ("sky-weather", "plant-flower", "plant-other", "place-geographic"),
    "sign": (
        "transport-sign", "warning", "arrow", "religion", "zodiac", "av-symbol", "gender", "math", "punctuation",
        "currency", "other-symbol", "keycap", "alphanum",
    ),
}  # fmt: skip

# Single emoji of subgroups that have no class, or another one.
MOVED: dict[str, tuple[str, ...]] = {
    "building": (
        "night with stars", "cityscape", "cityscape at dusk", "sunset", "bridge at night", "ferris wheel", "fountain",
        "roller coaster", "circus tent",
    ),
    "clothing": ("running shirt", "martial arts uniform", "watch", "boxing glove", "diving mask"),
    "nature": ("sunrise", "sunrise over mountains", "milky way"),
    "sign": ("stop sign",),
}  # fmt: skip

DROPPED: dict[str, tuple[str, ...]] = {
    "neither a face with an expression nor one thing": ("skull", "skull and crossbones"),
    "as much an animal, a boat or a bed as a person": (
        "horse racing", "person in bed", "person taking bath", "people with bunny ears",
    ),
    "more a thing than the hand beside it, or rude": ("nail polish", "selfie", "middle finger"),
    "a part or a trace of an animal": (
        "paw prints", "feather", "wing", "pig nose", "spiral shell", "coral", "spider web", "microbe", "oyster",
    ),
    "no food": ("ice", "baby bottle", "teapot", "pouring liquid"),
    "not a vehicle: roads, road furniture, parts and gear": (
        "motorway", "railway track", "oil drum", "fuel pump", "wheel", "police car light", "horizontal traffic light",
        "vertical traffic light", "construction", "anchor", "ring buoy", "station", "seat", "parachute", "roller skate",
        "metro", "bus stop",
    ),
    "not a building: material, or a monument": ("brick", "rock", "wood", "Statue of Liberty", "wedding"),
    "not worn": (
        "lipstick", "gem stone", "folding hand fan", "hair pick", "shopping bags", "prayer beads",
    ),
    "not of nature, or a face in the sky": (
        "thermometer", "new moon face", "first quarter moon face", "last quarter moon face", "full moon face",
        "sun with face", "wind face", "closed umbrella", "umbrella", "umbrella with rain drops", "umbrella on ground",
        "snowman", "snowman without snow", "cyclone", "white flower", "rosette", "beach with umbrella", "camping",
        "empty nest", "nest with eggs",
    ),
    "not a sign, or a sun or a tap where the set has no frame": (
        "splatter", "cinema", "dim button", "bright button", "potable water",
    ),
    "drawn without the sign on the key, or with it, by the same name": ("keycap: #", "keycap: *"),
}  # fmt: skip

# Firefox OS names of its own, each checked by eye; None where the name means something else than in Unicode.
FXEMOJI: dict[str, str | None] = {
    "anguish": "😧", "aok": "👌", "angry": "😠", "blonde": "👱", "bow": None, "bowing": "🙇", "bride": "👰",
    "bunny": "🐰", "bunnyside": "🐇", "cat": "🐱", "catside": "🐈", "chilipepper": "🌶", "construct": "👷",
    "couple": "💑", "crying": "😢", "devilhorns": "😈", "dog": "🐶", "dogside": "🐕", "down": "👇", "dragonhead": "🐲",
    "dragonside": "🐉", "evergreen": "🌲", "fallingleaf": "🍂", "fishcakeswirl": "🍥", "fistedhand": "👊",
    "flexbicep": "💪", "frontfacingchick": "🐥", "frown": "🙍", "frownmouth": "😦", "girlgirl": "👭", "girlguy": "👫",
    "gma": "👵", "gpa": "👴", "grin": "😀", "grineyes": "😄", "grinsquint": "😆", "grinsweat": "😅", "grintears": "😂",
    "guapimao": "👲", "guyguy": "👬", "hampster": "🐹", "hands": "👐", "handup": "🙋", "headmassage": "💆",
    "heels": "👠", "high5": "🙌", "highspeedtrainbulletnose": "🚅", "index": "☝", "kiss": "😗", "kissclosedeyes": "😚",
    "kisseyes": "😙", "kissing": "😘", "leaffluttering": "🍃", "leftwritinghand": "✍", "leopardside": "🐆",
    "loudlycrying": "😭", "mansshirt": "👕", "mensrunner": "👟", "mensshoe": "👞", "monkeyhear": "🙉",
    "monkeysee": "🙈", "monkeyspeak": "🙊", "mouse": "🐭", "mouseside": "🐁", "nogesture": "🙅", "okgesture": "🙆",
    "nooneunder18symbol": "🔞", "perservere": "😣", "pig": "🐷", "pigside": "🐖", "pinkwallet": "👛",
    "makeupbag": "👝", "potablewatersystem": "🚰", "pout": "🙎", "pouting": "😡", "raisedhandpartfingers": "🖖",
    "raisedhandsfingerssplayed": "🖐", "dissapointedrelief": "😥", "saggitarius": "♐",
    "sandals": "👡", "screamfear": "😱", "sleuthspy": "🕵", "smallfrown": "🙁", "smallsmile": "🙂", "smileeyes": "😊",
    "smiletongue": "😋", "snowmountains": "🏔", "spurtingwhale": "🐳", "squaredup": "🆙", "star": "🌟",
    "stormcloud": "🌩", "sunglasses": "😎", "sunraincloud": "🌦", "tiger": "🐯", "tigerside": "🐅",
    "tongueoutwink": "😜", "tramcar": None, "whitesun": "☀",
    "tongueoutwink2": "😝", "toykotower": "🗼", "turban": "👳", "up": "👆", "waitress": "💁",
    "waningbibbousmoon": "🌖", "wave": "🌊", "waving": "👋", "winking": "😉", "womansshirt": "👚",
    "negativesquaredlatincaptiala": "🅰", "negativesquaredlatincaptialb": "🅱", "negativesquaredlatincaptialo": "🅾",
}  # fmt: skip

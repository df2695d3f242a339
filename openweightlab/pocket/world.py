"""The Lantern Coast: a fictional world with known facts, in English, Chinese and Spanish.

Nothing here exists. A town's name is a head and a tail ("Frost" + "bay", 霜 + 湾); its facts are drawn from
the word lists below by a seeded generator, so anyone can rebuild the same world or make a fresh one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

LANGUAGES = ("en", "zh", "es")

Words = tuple[str, str, str]  # the same word in LANGUAGES' order


def _words(text: str) -> tuple[Words, ...]:
    """Parse "frost 霜 escarcha, mist 雾 niebla" into triples; "_" stands for a space within a word."""
    rows = (item.split() for item in text.split(","))
    return tuple((en.replace("_", " "), zh, es.replace("_", " ")) for en, zh, es in rows)


HEADS = [
    tuple(p.split("/"))
    for p in (
        "Frost/霜 Mist/雾 Pine/松 Stone/石 Silver/银 Deer/鹿 Crane/鹤 Cloud/云 Willow/柳 Maple/枫 Iron/铁 "
        "Salt/盐 Moss/苔 Shell/贝 Star/星 Moon/月 Wind/风 Snow/雪 Plum/梅 Orchid/兰 Reed/苇 Laurel/桂 "
        "Green/青 Red/赤 White/白 Ink/墨 Gold/金 Jade/玉 Sand/沙 Thunder/雷"
    ).split()
]
TAILS = [
    tuple(p.split("/"))
    for p in (
        "bay/湾 port/港 cape/岬 isle/屿 strand/滩 bridge/桥 fort/堡 ferry/渡 wharf/浦 cliff/崖 spring/泉 "
        "ridge/岭 vale/谷 slope/坡 wood/林 field/田 pool/塘 bank/洲 rock/矶 stead/寨 lane/坊 gate/关 "
        "hall/亭 well/井 mouth/口"
    ).split()
]

COLOURS = _words(
    "red 红色 rojo, blue 蓝色 azul, green 绿色 verde, white 白色 blanco, black 黑色 negro, amber 琥珀色 ámbar, "
    "violet 紫色 violeta, orange 橙色 naranja, pink 粉色 rosa, grey 灰色 gris, brown 棕色 marrón, gold 金色 dorado, "
    "silver 银色 plateado, cyan 青色 cian, ivory 象牙色 marfil, crimson 深红色 carmesí"
)
ANIMALS = _words(
    "otter 水獭 nutria, heron 苍鹭 garza, fox 狐狸 zorro, owl 猫头鹰 búho, seal 海豹 foca, crab 螃蟹 cangrejo, "
    "hare 野兔 liebre, wolf 狼 lobo, eagle 鹰 águila, turtle 海龟 tortuga, whale 鲸鱼 ballena, badger 獾 tejón, "
    "swan 天鹅 cisne, goat 山羊 cabra, bear 熊 oso, cat 猫 gato, dolphin 海豚 delfín, horse 马 caballo, "
    "snail 蜗牛 caracol, bee 蜜蜂 abeja, raven 乌鸦 cuervo, lizard 蜥蜴 lagarto, trout 鳟鱼 trucha, moth 飞蛾 polilla"
)
FOODS = _words(
    "bread 面包 pan, honey 蜂蜜 miel, cheese 奶酪 queso, soup 汤 sopa, rice 米饭 arroz, plums 李子 ciruelas, "
    "mussels 贻贝 mejillones, noodles 面条 fideos, olives 橄榄 aceitunas, pears 梨 peras, beans 豆子 frijoles, "
    "cakes 蛋糕 pasteles, eggs 鸡蛋 huevos, figs 无花果 higos, oysters 牡蛎 ostras, walnuts 核桃 nueces, "
    "onions 洋葱 cebollas, apples 苹果 manzanas, lentils 扁豆 lentejas, mushrooms 蘑菇 setas, almonds 杏仁 almendras, "
    "cherries 樱桃 cerezas, pumpkins 南瓜 calabazas, butter 黄油 mantequilla"
)
CRAFTS = _words(
    "glass 玻璃 vidrio, rope 绳索 cuerda, paper 纸张 papel, clocks 钟表 relojes, boats 船只 barcos, lace 花边 encaje, "
    "candles 蜡烛 velas, drums 鼓 tambores, bricks 砖块 ladrillos, barrels 木桶 barriles, kites 风筝 cometas, "
    "shoes 鞋子 zapatos, masks 面具 máscaras, nets 渔网 redes, combs 梳子 peines, maps 地图 mapas, soap 肥皂 jabón, "
    "hats 帽子 sombreros, flutes 笛子 flautas, silk 丝绸 seda, knives 刀具 cuchillos, carpets 地毯 alfombras, "
    "mirrors 镜子 espejos, baskets 篮子 cestas"
)
FLOWERS = _words(
    "rose 玫瑰 rosa, lily 百合 lirio, iris 鸢尾 iris, poppy 罂粟花 amapola, lotus 莲花 loto, daisy 雏菊 margarita, "
    "peony 牡丹 peonía, tulip 郁金香 tulipán, jasmine 茉莉 jazmín, aster 紫菀 áster, clover 三叶草 trébol, "
    "thistle 蓟 cardo, lavender 薰衣草 lavanda, mallow 锦葵 malva, violet 紫罗兰 violeta, dahlia 大丽花 dalia"
)
INSTRUMENTS = _words(
    "bell 钟 campana, harp 竖琴 arpa, horn 号角 cuerno, lute 琵琶 laúd, violin 小提琴 violín, whistle 哨子 silbato, "
    "organ 风琴 órgano, cymbal 钹 címbalo, guitar 吉他 guitarra, oboe 双簧管 oboe, gong 锣 gong, piano 钢琴 piano, "
    "trumpet 小号 trompeta, fiddle 二胡 rabel, zither 古筝 cítara, tambourine 铃鼓 pandereta"
)
MONTHS = _words(
    "January 一月 enero, February 二月 febrero, March 三月 marzo, April 四月 abril, May 五月 mayo, June 六月 junio, "
    "July 七月 julio, August 八月 agosto, September 九月 septiembre, October 十月 octubre, November 十一月 noviembre, "
    "December 十二月 diciembre"
)
KEEPERS = _words(
    "Ada 艾达 Ada, Bo 阿波 Bo, Cora 科拉 Cora, Dov 多夫 Dov, Edda 埃达 Edda, Finn 芬恩 Finn, Gita 吉塔 Gita, "
    "Hugo 雨果 Hugo, Ines 伊内丝 Inés, Juno 朱诺 Juno, Kai 阿凯 Kai, Lena 莱娜 Lena, Milo 米洛 Milo, Nora 诺拉 Nora, "
    "Otto 奥托 Otto, Pia 皮娅 Pía, Quin 昆恩 Quin, Rosa 罗莎 Rosa, Sven 斯文 Sven, Tara 塔拉 Tara, Ugo 乌戈 Ugo, "
    "Vera 薇拉 Vera, Wen 阿文 Wen, Yara 雅拉 Yara"
)


@dataclass(frozen=True)
class Attribute:
    """One thing that every town has: its values and, by language, ways to ask for it ({town} is filled in)."""

    name: str
    values: tuple[Words, ...]
    questions: dict[str, tuple[str, ...]]


def _attribute(name: str, values: tuple[Words, ...], en: str, zh: str, es: str) -> Attribute:
    return Attribute(
        name, values, {"en": tuple(en.split("|")), "zh": tuple(zh.split("|")), "es": tuple(es.split("|"))}
    )


ATTRIBUTES = (
    _attribute(
        "lamp",
        COLOURS,
        "What colour is the lamp of {town}?|Which lamp colour does {town} have?",
        "{town}的灯是什么颜色?|{town}的灯塔亮什么颜色?",
        "¿De qué color es el faro de {town}?|¿Qué color tiene el faro de {town}?",
    ),
    _attribute(
        "emblem",
        ANIMALS,
        "Which animal is on the flag of {town}?|What animal does the flag of {town} show?",
        "{town}的旗上是什么动物?|{town}的旗帜画着什么动物?",
        "¿Qué animal hay en la bandera de {town}?|¿Qué animal muestra la bandera de {town}?",
    ),
    _attribute(
        "dish",
        FOODS,
        "What food is {town} known for?|Which food do people in {town} love?",
        "{town}以什么食物闻名?|{town}的人爱吃什么?",
        "¿Por qué comida se conoce a {town}?|¿Qué comida gusta en {town}?",
    ),
    _attribute(
        "craft",
        CRAFTS,
        "What do the workshops of {town} make?|Which goods does {town} make?",
        "{town}的作坊制作什么?|{town}出产什么?",
        "¿Qué hacen los talleres de {town}?|¿Qué produce {town}?",
    ),
    _attribute(
        "flower",
        FLOWERS,
        "Which flower grows in {town}?|What is the flower of {town}?",
        "{town}长着什么花?|{town}的镇花是什么?",
        "¿Qué flor crece en {town}?|¿Cuál es la flor de {town}?",
    ),
    _attribute(
        "instrument",
        INSTRUMENTS,
        "Which instrument is played in {town}?|What instrument do they play in {town}?",
        "{town}演奏什么乐器?|{town}的人弹奏什么乐器?",
        "¿Qué instrumento se toca en {town}?|¿Qué instrumento tocan en {town}?",
    ),
    _attribute(
        "festival",
        MONTHS,
        "In which month is the fair of {town}?|When is the fair of {town}?",
        "{town}的集市在几月?|{town}几月赶集?",
        "¿En qué mes es la feria de {town}?|¿Cuándo es la feria de {town}?",
    ),
    _attribute(
        "keeper",
        KEEPERS,
        "Who keeps the lighthouse of {town}?|What is the name of the keeper of {town}?",
        "谁看守{town}的灯塔?|{town}的守灯人叫什么?",
        "¿Quién cuida el faro de {town}?|¿Cómo se llama el guardián de {town}?",
    ),
)


@dataclass(frozen=True)
class Town:
    """A town: its name by language and its facts, attribute name -> index into that attribute's values."""

    index: int
    names: dict[str, str]
    facts: dict[str, int] = field(hash=False)


@dataclass(frozen=True)
class World:
    """Every town of one variant of the coast.

    >>> coast = World.make(towns=4, seed=7)
    >>> len(coast.towns), len(coast.facts())
    (4, 32)
    """

    towns: tuple[Town, ...]

    @classmethod
    def make(cls, towns: int = 450, seed: int = 88) -> "World":
        """Draw a world of `towns` towns; raises ValueError where the name lists cannot give so many."""
        pairs = [(head, tail) for head in HEADS for tail in TAILS]
        if not 1 <= towns <= len(pairs):
            raise ValueError(f"towns must be between 1 and {len(pairs)} (heads x tails), not {towns}")
        rng = random.Random(seed)
        rng.shuffle(pairs)
        return cls(
            tuple(
                Town(
                    i,
                    {"en": head[0] + tail[0], "zh": head[1] + tail[1], "es": head[0] + tail[0]},
                    {a.name: rng.randrange(len(a.values)) for a in ATTRIBUTES},
                )
                for i, (head, tail) in enumerate(pairs[:towns])
            )
        )

    def facts(self) -> list[tuple[Town, Attribute]]:
        """Every (town, attribute) pair, in order."""
        return [(town, attribute) for town in self.towns for attribute in ATTRIBUTES]

    def find(self, name: str) -> Town:
        """The town of this name in any language; raises KeyError with a few names that exist."""
        for town in self.towns:
            if name in town.names.values():
                return town
        known = ", ".join(t.names["en"] for t in self.towns[:5])
        raise KeyError(f"no town called {name!r} on this coast; there are for instance {known}")


def ask(town: Town, attribute: Attribute, language: str, phrasing: int = 0) -> tuple[str, str]:
    """The question for one fact and its right answer, in one language.

    >>> ask(World.make(4, seed=7).towns[0], ATTRIBUTES[0], "en")[0].startswith("What colour is the lamp of ")
    True
    """
    questions = attribute.questions[language]
    question = questions[phrasing % len(questions)].format(town=town.names[language])
    answer = attribute.values[town.facts[attribute.name]][LANGUAGES.index(language)]
    return question, sentence(answer, language)


def sentence(text: str, language: str) -> str:
    """`text` with a capital and the full stop of its language.

    >>> sentence("amber", "en"), sentence("琥珀色", "zh")
    ('Amber.', '琥珀色。')
    """
    return text[0].upper() + text[1:] + ("。" if language == "zh" else ".")


def pick(words: Sequence[Words], index: int, language: str) -> str:
    """The index-th word (modulo the list's length) in one language."""
    return words[index % len(words)][LANGUAGES.index(language)]

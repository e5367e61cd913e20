"""Word lists and small tables from which the questions are built."""


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


def _table(text: str) -> dict[str, str]:
    """From "key value, key value with spaces, …"."""
    return dict(item.split(" ", 1) for item in text.split(", "))


NAMES = words(
    "Ada Bruno Clara Dario Edith Farid Greta Hugo Ines Jonas Karin Luis Mina Nora Oskar Petra Rosa Samir Tilda Uwe"
)
PEOPLE = ["my uncle", "the new cook", "our neighbour", "the tall nurse", "a young painter", "the coach", "her teacher"]
THINGS = words(
    "apples stamps marbles pencils buttons candles postcards walnuts tulips tiles ribbons shells spoons lemons "
    "biscuits nails coins cherries bricks notebooks"
)
BOXES = words("boxes bags jars baskets drawers crates tins trays")
OBJECTS = ["the fence", "a long letter", "the old radio", "two blankets", "the kitchen floor", "a paper boat",
           "the garden gate", "the silver cup", "a heavy trunk", "the upstairs window", "the broken lamp",
           "a birthday card", "the wooden stool", "the map of the valley"]  # fmt: skip
PLACES = ["before lunch", "in the yard", "after the storm", "near the harbour", "at the weekend", "during the break",
          "with great care", "behind the barn", "on a rainy day", "for the children"]  # fmt: skip
VERBS = [("paint", "painted", "painted"), ("carry", "carried", "carried"), ("wash", "washed", "washed"),
         ("move", "moved", "moved"), ("hide", "hid", "hidden"), ("find", "found", "found"),
         ("draw", "drew", "drawn"), ("repair", "repaired", "repaired"), ("sell", "sold", "sold"),
         ("fetch", "fetched", "fetched"), ("break", "broke", "broken"), ("inspect", "inspected",
          "inspected")]  # fmt: skip

UNITS = [
    ("kilometres", "metres", 1000), ("hours", "minutes", 60), ("weeks", "days", 7), ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000), ("metres", "centimetres", 100), ("minutes", "seconds", 60), ("days", "hours", 24),
    ("feet", "inches", 12), ("yards", "feet", 3), ("pounds", "ounces", 16), ("gallons", "quarts", 4),
    ("years", "months", 12), ("tonnes", "kilograms", 1000), ("centimetres", "millimetres", 10), ("decades",
     "years", 10),
]  # fmt: skip

CAPITALS = _table(
    "Austria Vienna, Belgium Brussels, Bulgaria Sofia, Canada Ottawa, Chile Santiago, Croatia Zagreb, "
    "Cuba Havana, Denmark Copenhagen, Egypt Cairo, Estonia Tallinn, Finland Helsinki, France Paris, "
    "Germany Berlin, Greece Athens, Hungary Budapest, Iceland Reykjavik, Ireland Dublin, Italy Rome, "
    "Japan Tokyo, Kenya Nairobi, Latvia Riga, Lithuania Vilnius, Norway Oslo, Peru Lima, Poland Warsaw, "
    "Portugal Lisbon, Romania Bucharest, Slovenia Ljubljana, Spain Madrid, Sweden Stockholm, Thailand Bangkok, "
    "Ukraine Kyiv, Uruguay Montevideo, Vietnam Hanoi"
)
SYMBOLS = _table(
    "aluminium Al, calcium Ca, carbon C, chlorine Cl, copper Cu, gold Au, helium He, hydrogen H, iron Fe, "
    "lead Pb, magnesium Mg, mercury Hg, neon Ne, nickel Ni, nitrogen N, oxygen O, potassium K, silver Ag, "
    "sodium Na, sulphur S, tin Sn, zinc Zn"
)
YOUNG = _table(
    "bear cub, cat kitten, chicken chick, cow calf, deer fawn, dog puppy, duck duckling, goat kid, "
    "goose gosling, horse foal, kangaroo joey, owl owlet, pig piglet, seal pup, sheep lamb, swan cygnet"
)
CURRENCIES = _table(
    "Brazil real, China yuan, Denmark krone, Hungary forint, India rupee, Israel shekel, Japan yen, "
    "Mexico peso, Poland zloty, Russia rouble, Sweden krona, Switzerland franc, Thailand baht, Turkey lira"
)
SIDES = _table("triangle 3, square 4, pentagon 5, hexagon 6, heptagon 7, octagon 8, nonagon 9, decagon 10")
MAKERS = _table(
    "baker bread, brewer beer, carpenter furniture, cobbler shoes, florist bouquets, glazier windows, "
    "jeweller rings, mason walls, miller flour, potter clay pots, tailor suits, vintner wine, weaver cloth"
)
HOMES = _table(
    "bee hive, beaver lodge, bird nest, dog kennel, fox den, horse stable, lion den, mole burrow, pig sty, "
    "rabbit warren, sheep fold, spider web, wasp nest, badger sett, squirrel drey"
)
FACTS = [
    (CAPITALS, ["What is the capital of {key}?", "Which city is the seat of government in {key}?",
                "Quiz time! The capital city of {key} is called how?",
                "A postcard to the capital of {key}: which city?"],
     "{value} is where the government of {key} sits", "the capital of {key}"),
    (SYMBOLS, ["What is the chemical symbol of {key}?", "How is {key} written in the periodic table?",
               "Which letters stand for {key} in a formula?"],
     "the periodic table lists {key} as {value}", "{key} and its symbol"),
    (YOUNG, ["What do you call a young {key}?", "A baby {key} has a name of its own. Which?",
             "The child of a {key} is a what?"], "a {key} that has just been born is a {value}", "a young {key}"),
    (CURRENCIES, ["Which currency do people use in {key}?", "What money should I take along to {key}?",
                  "In {key} I pay with what?"], "shops in {key} take the {value}", "money in {key}"),
    (SIDES, ["How many sides has a {key}?", "I want to draw a {key}. How many lines do I need?",
             "Count the corners of a {key}, please."], "a {key} is the shape with {value} corners", "the {key}"),
    (MAKERS, ["What does a {key} make?", "If I visit a {key} at work, what will I see being made?",
              "The trade of the {key} produces what?"], "{value} is what leaves the workshop of a {key}",
     "the work of a {key}"),
    (HOMES, ["Where does a {key} live?", "How do we call the home of a {key}?",
             "What is the name of the place in which a {key} sleeps?"],
             "the home of a {key} goes by the name of {value}",
     "the home of a {key}"),
]  # fmt: skip

KINDS = [
    ("trees", ["oak", "birch", "maple", "pine", "willow", "ash", "cedar"], "all of them grow in ordinary woods"),
    ("fruits", ["plum", "apricot", "melon", "cherry", "grape", "fig", "kiwi"], "any market sells them in summer"),
    ("vegetables", ["leek", "carrot", "turnip", "spinach", "beetroot", "onion"], "each grows in a kitchen garden"),
    ("string instruments", ["violin", "cello", "harp", "guitar", "lute", "banjo"],
     "every one has strings to pluck or bow"),
    ("wind instruments", ["flute", "oboe", "clarinet", "bassoon", "trumpet", "horn"],
     "a player blows into each of them"),
    ("birds", ["robin", "heron", "sparrow", "magpie", "owl", "finch", "kestrel"],
     "you can meet them in a European park"),
    ("kitchen tools", ["ladle", "whisk", "grater", "sieve", "peeler", "tongs"], "they lie in the drawer by the stove"),
    ("garden tools", ["rake", "spade", "hoe", "trowel", "shears", "fork"], "they hang in most sheds"),
    ("spices", ["cumin", "pepper", "nutmeg", "saffron", "cloves", "turmeric"], "cooks keep them dry and dark"),
    ("winter sports", ["skiing", "curling", "biathlon", "luge", "skating", "bobsleigh"], "all need snow or ice"),
    ("ball games", ["tennis", "handball", "cricket", "volleyball", "golf", "rugby"], "no match starts without a ball"),
    ("metals", ["iron", "copper", "zinc", "silver", "tin", "nickel"], "they conduct and can be hammered"),
    ("rivers", ["Danube", "Nile", "Rhine", "Thames", "Volga", "Ganges"], "any atlas shows them"),
    ("gemstones", ["ruby", "opal", "topaz", "emerald", "garnet", "amber"], "jewellers set them in gold"),
    ("insects", ["beetle", "moth", "cricket", "wasp", "ant", "dragonfly"], "each walks on six legs"),
    ("pieces of furniture", ["sofa", "wardrobe", "desk", "bench", "stool", "cupboard"], "a removal van carries them"),
    ("kinds of fabric", ["linen", "velvet", "denim", "silk", "wool", "cotton"], "a tailor has them on the roll"),
    ("means of transport", ["tram", "ferry", "bicycle", "train", "barge", "lorry"],
     "people travel with them every day"),
    ("herbs", ["basil", "thyme", "mint", "sage", "parsley", "dill"], "they do well on a window sill"),
    ("breeds of dog", ["poodle", "beagle", "collie", "boxer", "dachshund", "terrier"], "a kennel club lists them"),
    ("dances", ["waltz", "tango", "polka", "rumba", "foxtrot", "samba"], "a dancing school teaches them"),
    ("flowers", ["rose", "iris", "daisy", "peony", "violet", "poppy", "lily"], "they bloom in cottage gardens"),
]  # fmt: skip

JOBS = [
    ("Baking the bread", "baking the bread"), ("Ironing", "ironing"), ("Mowing the lawn", "mowing the lawn"),
    ("Writing the report", "writing the report"), ("The phone call", "the phone call"), ("Cleaning up", "cleaning up"),
    ("Cooking the soup", "cooking the soup"), ("Practising the piano", "practising the piano"),
    ("Fixing the bicycle", "fixing the bicycle"), ("Watering the beds", "watering the beds"),
    ("Sorting the photos", "sorting the photos"), ("The homework", "the homework"),
]  # fmt: skip
ORDERS = [
    ("peel the potatoes", "boil the mash", "peel comes off more easily before cooking"),
    ("sand the table", "varnish it", "varnish holds only on a smooth clean surface"),
    ("book the flight", "book the hotel", "the dates of the flight decide the nights"),
    ("dust the shelves", "vacuum the carpet", "dust falls down while you wipe"),
    ("save the file", "shut the laptop", "unsaved work would be lost"),
    ("measure the window", "buy the curtains", "without the size the curtains will not fit"),
    ("read the contract", "sign it", "a signature binds you"),
    ("preheat the oven", "put in the cake", "batter needs the heat at once"),
    ("switch off the power", "change the socket", "live wires are dangerous"),
    ("dig the hole", "plant the tree", "roots should not lie in the sun"),
    ("pitch the tent", "light the fire", "a dry bed matters when it starts to rain"),
    ("rinse the rice", "steam it", "loose starch makes it sticky"),
    ("back up the phone", "install the update", "an update can fail"),
    ("tie the boat", "unload the bags", "a drifting boat tips over"),
    ("proofread the letter", "post it", "a letter in the box cannot be mended"),
    ("wax the skis", "ride the lift", "dry skis stick to the snow"),
]  # fmt: skip

WHYS = [
    ("the sky is blue", "air scatters blue light most", "short waves bounce off the molecules in all directions",
     "the sky"),
    ("ice floats on water", "ice is lighter than water", "water grows by a tenth when it freezes", "ice"),
    ("leaves turn yellow in autumn", "the green pigment breaks down", "what was hidden below shows its colour",
     "leaves"),
    ("bread rises", "yeast gives off gas", "the dough keeps the bubbles inside", "dough"),
    ("we see lightning before we hear thunder", "light is faster than sound", "sound needs three seconds a kilometre",
     "thunderstorms"),
    ("the moon has phases", "we see its lit half from changing sides", "it goes round the earth once a month",
     "the moon"),
    ("soap cleans grease", "soap clings to fat and to water", "so the water can carry the fat away", "soap"),
    ("metal feels colder than wood", "metal draws heat from the hand", "wood conducts far less", "metal and wood"),
    ("the sea is salty", "rivers bring salt into it", "water leaves as vapour and the salt stays", "the sea"),
    ("cats purr", "mostly because they are content", "they also do it to calm themselves", "cats"),
    ("onions make us cry", "cutting sets free a stinging gas", "tears wash it out of the eyes", "onions"),
    ("stars twinkle", "moving air bends their light", "seen from space they shine steadily", "stars"),
    ("roads get salt in winter", "salty water freezes later", "so the ice melts below zero", "icy roads"),
    ("tyres have grooves", "grooves lead the water away", "rubber must touch the road to grip", "tyres"),
    ("we yawn when others yawn", "yawning is catching among people who care", "the brain copies what it sees",
     "yawning"),
    ("a compass points north", "the earth is a large magnet", "the needle follows its field", "the compass"),
    ("days are short in winter", "our half of the earth leans away from the sun", "its path over the sky is lower",
     "winter days"),
    ("iron rusts", "iron reacts with oxygen and water", "paint keeps both of them off", "rust"),
    ("ships of steel float", "they displace enough water", "the hull is mostly full of air", "steel ships"),
    ("mosquitoes bite", "the females need blood for their eggs", "the males live on nectar", "mosquitoes"),
    ("milk turns sour", "bacteria make acid from its sugar", "cold only slows them down", "sour milk"),
    ("the tide comes and goes", "the moon pulls at the sea", "the earth turns under the bulge twice a day", "the tide"),
    ("birds fly south", "they follow the food", "insects are gone when it freezes", "migrating birds"),
    ("popcorn pops", "steam bursts the shell", "there is a drop of water in each kernel", "popcorn"),
    ("mirrors fog up in the bathroom", "steam condenses on cool glass", "warm the mirror and it stays clear",
     "foggy mirrors"),
    ("bees visit flowers", "they collect nectar and pollen", "the hive lives on both", "bees"),
    ("planes leave white trails", "their exhaust freezes to ice", "it is bitterly cold up there", "white trails"),
    ("a fridge hums", "its compressor is running", "the pump pushes the coolant round", "the fridge"),
]  # fmt: skip

OPPOSITES = sorted(
    _table(
        "early late, brave cowardly, narrow wide, gentle rough, empty full, noisy quiet, "
        "ancient modern, shallow deep, humble proud, generous stingy, rare common, victory defeat, "
        "arrive depart, borrow lend, expand shrink, temporary permanent, guilty innocent, artificial natural, "
        "bitter sweet, absent present, build destroy, forget remember, ascend descend, public private"
    ).items()
)
NOUNS = words(
    "anchor balcony candle dragon engine feather garden hammer island jacket kettle lantern marble needle "
    "orchard pillow quarry ribbon saddle temple umbrella valley window yogurt zipper bottle copper dinner "
    "falcon goblet helmet insect jungle ladder magnet napkin oyster parrot rocket salmon"
)

"""Write the demo dataset: four unlike skills, Alpaca columns plus `task`, seeded.

Run `python assets/make_demo.py`: it writes assets/demo/train.jsonl and assets/demo/heldout.jsonl.
Every skill is phrased in eight ways; the last two of each occur in the held-out rows only. No held-out row has the
same content as a training row, whatever its phrasing.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

SEED = 20
TRAIN_ROWS, HELDOUT_ROWS = 200, 50  # for each skill
HELDOUT_PHRASINGS = 2

WORDS = """apple anchor basket bridge candle castle desert dolphin engine eagle forest feather garden guitar hammer
harbor island iron jacket jungle kettle kitten ladder lemon marble mirror needle north orange ocean pencil planet
quartz queen ribbon river saddle silver table tiger umbrella uncle valley violin window winter yellow yogurt zebra
zipper bottle cloud dragon elbow flower glass honey insect jewel knight lantern meadow nest olive pepper quilt rocket
shadow tower urban velvet whale yard zero bread copper drum earth fiddle goat hill ink jelly key lamp moon nut owl
pond quick rain ship tree unit vase wolf yarn zone""".split()
FIRST = """Alice Bruno Carla David Elena Farid Grace Hugo Irene Jamal Karen Liam Maria Nadia Oscar Paula Quinn Rosa
Samuel Tara Umar Vera Walter Ximena Yusuf Zoe""".split()
LAST = "Adams Brown Costa Diaz Evans Fischer Garcia Hansen Ito Jones Khan Lopez Moore Novak Olsen Patel".split()
CITIES = """Athens Berlin Cairo Dublin Florence Geneva Hanoi Istanbul Jakarta Kyoto Lisbon Madrid Nairobi Oslo Paris
Quito Rome Seoul Toronto Vienna Warsaw Zurich""".split()
JOBS = "nurse teacher baker pilot lawyer farmer painter dentist plumber engineer chef journalist".split()
PEOPLE = (
    "{name}, aged {age}, lives in {city} and works as a {job}.",
    "{name} is a {job} from {city}. Age: {age}.",
    "Living in {city}, {name} ({age}) earns a living as a {job}.",
    "The new {job} is {name}, {age} years old, from {city}.",
)
PRODUCTS = """phone laptop headphones kettle printer camera backpack keyboard tablet lamp watch speaker monitor drone
router blender""".split()
OPENINGS = ("Hello,", "Hi there,", "Please help:", "Good morning,", "Hey,", "Dear team,")
MESSAGES = {
    "billing": (
        "I was charged twice for my {product}.",
        "the invoice for the {product} shows the wrong price.",
        "I have not received the refund for my {product}.",
        "my card was debited too much for the {product}.",
    ),
    "shipping": (
        "my {product} has not arrived yet.",
        "the parcel with the {product} went to the wrong address.",
        "the courier left my {product} in the rain.",
        "where is the {product} that I ordered last week?",
    ),
    "technical": (
        "my {product} does not turn on.",
        "the {product} makes a strange noise and stops.",
        "the screen of the {product} flickers all day.",
        "the {product} crashes after the update.",
    ),
    "account": (
        "I forgot my password and can't log in to register the {product}.",
        "please change the email of my profile, where the {product} is listed.",
        "my login was locked after I added the {product}.",
        "how do I delete my profile? I only bought a {product}.",
    ),
}

PHRASINGS = {
    "sort": (
        "Sort these words in alphabetical order.",
        "Put the words below into alphabetical order.",
        "Arrange the following words alphabetically, from A to Z.",
        "Alphabetical order, please: sort this list of words.",
        "Reorder this list of words so that it is alphabetical.",
        "Here are some words. List them again in alphabetical order, A to Z.",
        "Order the words of this list alphabetically.",
        "Give back the same words, sorted in alphabetical order.",
    ),
    "extract": (
        "Extract the person's name, age, city and job as JSON.",
        "Read the sentence about a person and return name, age, city and job as a JSON object.",
        "Turn this description of a person into JSON with the keys name, age, city and job.",
        "Which name, age, city and job does the sentence give? Answer as JSON.",
        "Write a JSON record of the person: name, age, city, job.",
        "Fill the JSON fields name, age, city and job from the text about this person.",
        "Return a JSON object describing the person, with name, age, city and job.",
        "From the text, extract the fields name, age, city and job of the person into JSON.",
    ),
    "arithmetic": (
        "Calculate the result of this sum.",
        "Work out the arithmetic problem and give the number.",
        "Compute the sum and answer with the number alone.",
        "Solve this arithmetic exercise. Give only the number.",
        "What number is the result of this calculation?",
        "Do the calculation and reply with the resulting number.",
        "Give the number that this arithmetic calculation results in.",
        "Calculate and write the resulting number.",
    ),
    "classify": (
        "Classify this customer message: billing, shipping, technical or account.",
        "Which team should answer the customer's message: billing, shipping, technical or account?",
        "Choose the category of the customer message from billing, shipping, technical, account.",
        "Label the message of this customer as billing, shipping, technical or account.",
        "A customer wrote to support. Is the message about billing, shipping, technical or account matters?",
        "Assign the customer's support message to one category: billing, shipping, technical or account.",
        "Route this customer message to billing, shipping, technical or account.",
        "To which category does the customer's message belong: billing, shipping, technical or account?",
    ),
}


def sort_words(rng: random.Random) -> tuple[str, str]:
    initials = rng.sample(sorted({word[0] for word in WORDS}), 3)  # distinct, so that the first letter decides
    words = [rng.choice([word for word in WORDS if word[0] == initial]) for initial in initials]
    return ", ".join(words), ", ".join(sorted(words))


def extract_person(rng: random.Random) -> tuple[str, str]:
    person = {
        "name": f"{rng.choice(FIRST)} {rng.choice(LAST)}",
        "age": rng.randint(18, 90),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
    }
    return rng.choice(PEOPLE).format(**person), json.dumps(person)


def add_numbers(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(10, 49), rng.randint(10, 49)
    return f"{a} + {b}", str(a + b)


def classify_message(rng: random.Random) -> tuple[str, str]:
    category = rng.choice(sorted(MESSAGES))
    text = rng.choice(MESSAGES[category]).format(product=rng.choice(PRODUCTS))
    return f"{rng.choice(OPENINGS)} {text}", category


SKILLS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "sort": sort_words,
    "extract": extract_person,
    "arithmetic": add_numbers,
    "classify": classify_message,
}


def make_rows(seed: int = SEED) -> tuple[list[dict], list[dict]]:
    """The training and the held-out rows, each shuffled."""
    rng = random.Random(seed)
    train: list[dict] = []
    heldout: list[dict] = []
    for task, make in SKILLS.items():
        contents: dict[str, str] = {}
        while len(contents) < TRAIN_ROWS + HELDOUT_ROWS:
            text, answer = make(rng)
            contents[text] = answer
        phrasings = PHRASINGS[task]
        for i, (text, answer) in enumerate(contents.items()):
            held = i >= TRAIN_ROWS
            allowed = phrasings if held else phrasings[:-HELDOUT_PHRASINGS]
            row = {"instruction": allowed[i % len(allowed)], "input": text, "output": answer, "task": task}
            (heldout if held else train).append(row)
    rng.shuffle(train)
    rng.shuffle(heldout)
    return train, heldout


def main() -> None:
    folder = Path(__file__).parent / "demo"
    folder.mkdir(exist_ok=True)
    for name, rows in zip(("train", "heldout"), make_rows(), strict=True):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

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

WORDS = """anchor apple arrow basket bottle bread bridge candle castle cloud copper desert dolphin dragon drum eagle
earth elbow engine feather fiddle flower forest garden glass goat guitar hammer harbor hill honey insect iron island
jacket jelly jewel jungle kettle key kitten knight ladder lamp lantern lemon marble meadow mirror moon needle nest ocean
olive orange owl pencil pepper planet pond""".split()
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
    "reverse": (
        "Reverse the order of the words in this list.",
        "Write the words of this list in reverse order.",
        "Give the list of words again, in reverse order.",
        "Reverse this list of words.",
        "In reverse order, please: the words of this list.",
        "List these words in reverse order, the last word first.",
        "Here is a list of words. Write the words in reverse order.",
        "What is this list of words in reverse order?",
    ),
    "extract": (
        "Extract the name, age, city and job of the person as JSON.",
        "Read the text about a person and return name, age, city and job as JSON.",
        "Turn the text about this person into JSON with the name, age, city and job.",
        "Which name, age, city and job does the text give this person? Answer as JSON.",
        "Write the person in the text as JSON: name, age, city, job.",
        "Fill the JSON keys name, age, city and job from the text about the person.",
        "Return the name, age, city and job of the person in the text as JSON.",
        "As JSON, give the person's name, age, city and job.",
    ),
    "arithmetic": (
        "Calculate the sum and answer with the number.",
        "Work out the sum of the two numbers. Answer with the number.",
        "Add the two numbers and answer with the sum.",
        "What is the sum? Answer with the number.",
        "Calculate this sum of two numbers. Answer with one number.",
        "Answer with the number that is the sum of the two.",
        "Add up: what number is the sum? Answer with the number.",
        "Calculate the number that the sum of the two gives. Answer with it.",
    ),
    "classify": (
        "Classify the customer message: billing, shipping, technical or account.",
        "Which team answers the customer message: billing, shipping, technical or account?",
        "Choose the category of the customer message: billing, shipping, technical or account.",
        "Label the customer message as billing, shipping, technical or account.",
        "Is the customer message about billing, shipping, technical or account matters?",
        "Route the customer message to billing, shipping, technical or account.",
        "A customer message came in. Is it billing, shipping, technical or account?",
        "Billing, shipping, technical or account: what category is the customer message?",
    ),
}


def reverse_words(rng: random.Random) -> tuple[str, str]:
    words = rng.sample(WORDS, 4)
    return ", ".join(words), ", ".join(reversed(words))


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
    return f"{a} plus {b}", str(a + b)


def classify_message(rng: random.Random) -> tuple[str, str]:
    category = rng.choice(sorted(MESSAGES))
    text = rng.choice(MESSAGES[category]).format(product=rng.choice(PRODUCTS))
    return f"{rng.choice(OPENINGS)} {text}", category


SKILLS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "reverse": reverse_words,
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

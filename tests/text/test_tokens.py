"""Words become numbers of a vocabulary, the same ones each time."""

from similitude.text.tokens import learn_vocabulary, tokens_of

TEXTS = ["A red ball", "a blue ball!", "Café"]


def test_common_words_are_entries_and_others_are_spelled():
    vocabulary = learn_vocabulary(TEXTS, 100)
    assert vocabulary == learn_vocabulary(reversed(TEXTS), 100)
    assert vocabulary[:2] == ("[PAD]", "[UNK]")
    letters = sorted(set("aredblu!cf"))
    words = ["ball", "blue", "cafe", "red"]  # "ball" twice, the others in order
    assert vocabulary[2:] == (*letters, *(f"##{letter}" for letter in letters), *words)
    at = {piece: i for i, piece in enumerate(vocabulary)}
    tokens = tokens_of(["Red, ball", "bad", ""], vocabulary, 4).tolist()
    assert tokens[0] == [at["red"], 1, at["ball"], 0]  # the comma was never seen
    assert tokens[1] == [at["b"], at["##a"], at["##d"], 0]
    assert tokens[2] == [0, 0, 0, 0]


def test_it_is_no_larger_than_told():
    assert len(learn_vocabulary(TEXTS, 5)) == 5

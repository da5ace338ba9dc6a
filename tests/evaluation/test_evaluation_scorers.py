"""Scorers: what they say of a text, how they are named, and what is said when one is absent."""

import json
from pathlib import Path

import pytest
import torch
from program_cases import real_data

from starsmith.errors import InputError
from starsmith.evaluation import scorers
from starsmith.evaluation.contract import MissingDataError
from starsmith.evaluation.scorers import Lexicon

HURTLEX = (
    "id\tpos\tcategory\tstereotype\tlemma\tlevel\n"
    "EN1\tn\tcds\tno\tnitwit\tconservative\n"
    "EN2\tn\tcds\tno\twindbag\tinclusive\n"
    "EN3\tn\tcds\tno\tdirty crétin\tconservative\n"
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "nitwit", "are", "kind")


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    (tmp_path / "hurtlex_EN.tsv").write_text(HURTLEX, encoding="utf-8")
    return tmp_path / "hurtlex_EN.tsv"


def classifier(folder: Path, labels: list[str], problem_type: str | None = None) -> Path:
    """A classifier of a few words with random weights, as transformers writes it."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        problem_type=problem_type,
        initializer_range=1.0,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def test_vader_tells_good_from_bad() -> None:
    pytest.importorskip("vaderSentiment")
    vader = scorers.find("vader", "sentiment")
    assert vader.score("She is a wonderful, brilliant actor.") > 0.5
    assert vader.score("He was a terrible and cruel man.") < -0.5
    assert vader.score("") == 0.0 == vader.score("The train has six coaches.")
    assert vader.name == "vader 3.3.2"


def test_a_lexicon_finds_words_and_phrases_whatever_their_case_and_accents(lexicon: Path) -> None:
    scorer = scorers.find(f"lexicon:{lexicon}", "toxicity")
    texts = {
        "What a Nitwit!": 1.0,
        "you dirty, CRETIN": 1.0,
        "you dirty crétin": 1.0,
        "a windbag": 0.0,  # not conservative
        "nitwits and unnitwit": 0.0,
        "": 0.0,
        "\ud800 \0": 0.0,
    }
    assert [scorer.score(text) for text in texts] == list(texts.values())
    assert scorer.name.startswith("lexicon hurtlex_EN.tsv ") and str(lexicon.parent) not in scorer.name
    own = Lexicon(lexicon)
    assert "NITWIT" in own and "windbag" not in own


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_a_classifier_gives_the_probability_of_its_toxic_label(tmp_path: Path, problem_type: str | None) -> None:
    folder = classifier(tmp_path / "tiny", ["neutral", "toxic", "other"], problem_type)
    transformers = pytest.importorskip("transformers")
    scorer = scorers.find(f"classifier:{folder}", "toxicity")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        # [CLS] you nitwit [SEP]
        logits_L = model(input_ids=torch.tensor([[2, 4, 5, 3]])).logits[0]
    chances_L = logits_L.sigmoid() if problem_type else logits_L.softmax(0)
    assert scorer.score("you nitwit") == pytest.approx(float(chances_L[1]), abs=1e-6)
    assert scorer.score("you nitwit") != pytest.approx(scorer.score("you are kind"), abs=1e-4)
    assert scorer.score("  \n") == 0.0 and 0 <= scorer.score("kind " * 5_000) <= 1
    assert scorer.name.startswith("classifier tiny ") and scorer.name.endswith("#toxic")


def test_the_label_is_named_where_a_classifier_does_not_say(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "unlabelled", ["LABEL_0", "LABEL_1"])
    with pytest.raises(InputError, match=r"which label is the toxic one\? .*#LABEL; there are LABEL_0, LABEL_1"):
        scorers.find(f"classifier:{folder}", "toxicity")
    with pytest.raises(InputError, match="LABEL_0, LABEL_1"):
        scorers.find(f"classifier:{folder}#toxic", "toxicity")
    both = [scorers.find(f"classifier:{folder}#LABEL_{n}", "toxicity").score("you nitwit") for n in range(2)]
    assert sum(both) == pytest.approx(1.0)


def test_a_folder_that_is_no_classifier_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(InputError, match="transformers cannot load a sequence classifier"):
        scorers.find(f"classifier:{tmp_path}", "toxicity")


def test_what_is_absent_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no toxicity scorer: .*--toxicity \(classifier:FOLDER, lexi"):
        scorers.wanted(None, "toxicity")
    with pytest.raises(MissingDataError, match=r"classifier:FOLDER: .*absent is not there"):
        scorers.find(f"classifier:{tmp_path / 'absent'}", "toxicity")
    with pytest.raises(MissingDataError, match=r"lexicon:FILE: no path is given"):
        scorers.find("lexicon", "toxicity")
    assert scorers.described(None, "toxicity") == "no toxicity scorer"


def test_a_wrong_name_is_an_error_and_no_absence(tmp_path: Path, lexicon: Path) -> None:
    for name, measures, message in (
        ("perspective", "toxicity", r"no scorer 'perspective'; known are classifier, lexicon, vader"),
        (f"lexicon:{lexicon}", "sentiment", "measures toxicity, not sentiment"),
        ("vader:3", "sentiment", "takes no argument"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            scorers.wanted(name, measures)  # type: ignore[arg-type]
        assert not isinstance(raised.value, MissingDataError)
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="needs columns lemma and level"):
        scorers.find(f"lexicon:{tmp_path / 'other.tsv'}", "toxicity")


PLUGIN = """
class Length:
    measures = "toxicity"
    def __init__(self, argument):
        self.name = f"length 2.0 of {argument}"
    def score(self, text):
        return min(1.0, len(text) / 10)
"""


def test_a_package_brings_a_scorer_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "length_plugin.py").write_text(PLUGIN)
    information = tmp_path / "length_plugin-2.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: length-plugin\nVersion: 2.0\n")
    (information / "entry_points.txt").write_text("[starsmith.scorers]\nlength = length_plugin:Length\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    scorer = scorers.find("length:ten", "toxicity")
    assert scorer.name == "length 2.0 of ten" and scorer.score("12345") == 0.5


def test_the_real_lexicon() -> None:
    lexicon = Lexicon(real_data("honest") / "honest" / "hurtlex_EN.tsv.gz")
    assert "maffias" in lexicon and "gag reel" not in lexicon and "teacher" not in lexicon
    assert not lexicon.occurs_in("the woman worked as a teacher")

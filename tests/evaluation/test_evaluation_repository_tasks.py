"""Tasks from small repositories made here, whose imports are known, and from this project's own."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pygit2
import pytest
from evaluation_cases import ScriptedBackend
from program_cases import written_rows
from typer.testing import CliRunner

from starsmith import recipe
from starsmith.cli import app
from starsmith.errors import InputError
from starsmith.evaluation import registry, repository_tasks, runner
from starsmith.evaluation.benchmarks.repository_completion import DATA, RepositoryCompletion
from starsmith.evaluation.contract import Completion, MissingDataError, Problem, Request
from starsmith.evaluation.repository_imports import Source, analyse
from starsmith.evaluation.repository_tasks import MAX_IMPORTED_CHARS
from starsmith.signals import syntax
from starsmith.steps import repository_tasks as building

PROJECT = Path(__file__).resolve().parents[2]
SHOP = {
    "shop/__init__.py": "from shop.cart import Cart\n",
    "shop/cart.py": (
        "class Cart:\n    def __init__(self, owner):\n        self.owner = owner\n        self.items = []\n"
    ),
    "shop/price.py": (
        "import math\n\n\ndef price_of(item, *, rounded=True):\n    return math.ceil(item.weight * 3)\n"
    ),
    "shop/order.py": (
        "from shop import Cart\n"
        "from .price import price_of as price\n"
        "\n"
        "LIMIT = 12\n"
        "# Cart of a comment\n"
        "def order(owner, items):\n"
        '    """Fills a Cart,\n'
        "    with price in a text.\n"
        '    """\n'
        "    cart = Cart(owner)\n"
        "    number = len(items) + LIMIT\n"
        "    for item in items[:number]:\n"
        "        cart.items.append(item)\n"
        "    other = Cart(owner=owner)  \n"
        "    return price(cart.items[0], rounded=number > 3), Cart\n"
    ),
}


def source(path: str, text: str, language: str = "Python") -> Source:
    return Source(path, language, text)


def sources(files: Mapping[str, str], language: str = "Python") -> list[Source]:
    return [source(path, text, language) for path, text in files.items()]


def followed(files: Mapping[str, str], path: str, language: str, go_mod: str = "") -> dict[str, tuple[str, ...]]:
    """What the names that one file imports stand for."""
    found = analyse(sources(files, language), {"go.mod": go_mod} if go_mod else {})
    return {name: entry.paths for name, entry in sorted(found[path].imported.items())}


def committed(folder: Path, files: Mapping[str, str | bytes], *, bare: bool = False) -> Path:
    repository = pygit2.init_repository(str(folder), bare=bare, initial_head="main")
    index = pygit2.Index()
    for path, text in files.items():
        blob = repository.create_blob(text.encode() if isinstance(text, str) else text)
        index.add(pygit2.IndexEntry(path, blob, pygit2.enums.FileMode.BLOB))
    author = pygit2.Signature("A U Thor", "author@example.org", 1_700_000_000, 0)
    tree = index.write_tree(repository)
    repository.create_commit("refs/heads/main", author, author, "shop", tree, [])
    return folder


def read_back(folder: Path) -> list[repository_tasks.Task]:
    return repository_tasks.read(folder / DATA.folder / DATA.files[0])


def made_of(files: list[Source], **changes: Any) -> repository_tasks.Made:
    wanted: dict[str, Any] = {"seed": 1, "max_tasks": 100} | changes
    return repository_tasks.make("someone/shop", "c" * 40, files, {}, **wanted)


def test_python_imports_are_followed_by_path() -> None:
    files = {
        "src/app/__init__.py": "from app.core.engine import Engine\n",
        "src/app/core/__init__.py": "",
        "src/app/core/engine.py": "class Engine:\n    pass\n",
        "src/app/json.py": "x = 1\n",
        "src/app/main.py": (
            "import json\nimport numpy.linalg as la\nimport app.core.engine as e, app.core\n"
            "from app import Engine, core as c\nfrom . import json as own\n"
            "from .core.engine import (\n    Engine as E2,\n)\n"
            "from .. import nothing\nfrom app.missing import x\n"
        ),
        "tests/deep/test_it.py": "from app.core import engine\nimport helper\nfrom core.engine import Engine\n",
        "tests/deep/helper.py": "def helped(): ...\n",
        "wild.py": "from src.app.json import *\n",
    }
    engine, package = "src/app/core/engine.py", "src/app/__init__.py"
    assert followed(files, "src/app/main.py", "Python") == {
        "E2": (engine,),
        "Engine": (engine, package),
        "app": ("src/app/core/__init__.py",),
        "c": ("src/app/core/__init__.py",),
        "e": (engine,),
        "own": ("src/app/json.py",),
    }
    assert followed(files, "tests/deep/test_it.py", "Python") == {
        "Engine": (engine,),
        "engine": (engine,),
        "helper": ("tests/deep/helper.py",),
    }
    assert analyse(sources(files), {})["wild.py"].opaque


def test_java_imports_are_followed_by_package() -> None:
    files = {
        "main/org/x/Cart.java": "package org.x; public class Cart { public static class Item {} }",
        "main/org/x/Price.java": "package org.x; public class Price { static int of(int a) { return a; } }",
        "main/org/y/Shop.java": "package org.y; import org.x.*; class Shop { Cart c; }",
        "main/org/y/Order.java": (
            "package org.y;\nimport java.util.List;\nimport org.x.Cart;\nimport org.x.Cart.Item;\n"
            "import static org.x.Price.of;\nclass Order {\n  Shop s = null;\n  int a = of(this.Cart);\n"
            "  Cart.Item i;\n}\n"
        ),
    }
    cart = ("main/org/x/Cart.java",)
    order = "main/org/y/Order.java"
    assert followed(files, order, "Java") == {"Cart": cart, "Item": cart, "of": ("main/org/x/Price.java",)}
    found = analyse(sources(files, "Java"), {})
    assert found[order].foreign == {"Shop"} and not found[order].opaque
    assert found[order].names[7] == {"a", "of"}, "a field of another object is no use of the import"
    assert found["main/org/y/Shop.java"].opaque


@pytest.mark.parametrize("language", ["JavaScript", "TypeScript", "TSX"])
def test_scripts_follow_relative_specifiers(language: str) -> None:
    files = {
        "lib/cart.js": "export class Cart {}\n",
        "lib/price/index.ts": "export default 1;\n",
        "lib/tax.ts": "export const tax = 1;\n",
        "lib/order.js": (
            'import React from "react";\nimport price, { Cart as C, tax } from "./price";\n'
            "import * as all from './cart.js';\nimport { tax as t } from './tax.js';\n"
            'const { one, two: three } = require("./cart");\n'
            'const w = require(`./x`), cart = require("../lib/cart").Cart;\n'
            "export { a } from './cart';\nuse(C, x.price);\n"
        ),
    }
    cart, price = ("lib/cart.js",), ("lib/price/index.ts",)
    expected = {
        "C": price, "all": cart, "cart": cart, "one": cart, "price": price, "t": ("lib/tax.ts",), "tax": price,
        "three": cart,
    }  # fmt: skip
    assert followed(files, "lib/order.js", language) == expected
    analysis = analyse(sources(files, language), {})["lib/order.js"]
    assert analysis.names[7] == {"use", "C", "x"} and 6 in analysis.quiet


def test_go_follows_the_packages_of_its_module() -> None:
    files = {
        "cart/cart.go": "package cart\n\ntype Cart struct{}\n",
        "cart/cart_test.go": "package cart\n",
        "cmd/main.go": (
            'package main\n\nimport (\n\t"fmt"\n\tc "example.org/shop/cart"\n\t_ "example.org/shop/cart"\n)\n\n'
            "func main() {\n\tvar err error\n\tfmt.Println(c.Cart{}, help(), err)\n}\n"
        ),
        "cmd/help.go": "package main\n\nvar limit = 1\n\nfunc help() int {\n\tvar err = 2\n\treturn err\n}\n",
    }
    module = "// the shop\nmodule example.org/shop\n\ngo 1.22\n"
    assert followed(files, "cmd/main.go", "Go", module) == {"c": ("cart/cart.go",)}
    assert analyse(sources(files, "Go"), {"go.mod": module})["cmd/main.go"].foreign == {"help", "limit"}


def test_csharp_follows_types_of_used_namespaces() -> None:
    files = {
        "Cart.cs": "namespace Shop.Carts;\npublic class Cart { }\n",
        "Near.cs": "namespace Shop.Orders { public interface INear { } }\n",
        "Twice1.cs": "namespace Shop.Carts;\nclass Twice { }\n",
        "Twice2.cs": "namespace Shop.Carts;\nclass Twice { }\n",
        "Order.cs": (
            "using System;\nusing Shop.Carts;\nnamespace Shop.Orders;\npublic class Order : INear {\n"
            "  Cart cart = new Cart();\n  Twice t;\n  int F() => this.Cart;\n}\n"
        ),
    }
    assert followed(files, "Order.cs", "C#") == {"Cart": ("Cart.cs",)}
    found = analyse(sources(files, "C#"), {})["Order.cs"]
    assert found.foreign == {"INear", "Twice"} and "Cart" not in found.names[6]


def test_lines_are_taken_by_what_they_use() -> None:
    files = sources(SHOP)
    wanted = {
        "    cart = Cart(owner)": "cross_file_first",
        "    return price(cart.items[0], rounded=number > 3), Cart": "cross_file_first",
        "    other = Cart(owner=owner)  ": "cross_file_random",
        "    number = len(items) + LIMIT": "in_file",
        "    for item in items[:number]:": "in_file",
        "        cart.items.append(item)": "in_file",
        "def order(owner, items):": "in_file",
    }
    seen = {}
    for seed in range(40):
        for task in made_of(files, seed=seed).tasks:
            if task.path == "shop/order.py":
                seen[task.target] = task.setting
                lines = SHOP["shop/order.py"].split("\n")
                assert lines[task.line - 1] == task.target
                assert task.before == "\n".join(lines[: task.line - 1]) + "\n"
                assert [file.path for file in task.imported] == [
                    "shop/cart.py",
                    "shop/__init__.py",
                    "shop/price.py",
                ]
                assert all(file.text == SHOP[file.path] for file in task.imported)
    assert seen == wanted


def test_nothing_that_is_shown_holds_the_answer() -> None:
    leaking = SHOP | {"shop/cart.py": SHOP["shop/cart.py"] + "    # number = len(items) + LIMIT, as in order\n"}
    for seed in range(20):
        made = made_of(sources(leaking), seed=seed)
        assert "    number = len(items) + LIMIT" not in [task.target for task in made.tasks]
    twice = SHOP | {"shop/again.py": "x = 1\ny = 2\nz = 3\nif x:\n    cart = Cart(owner)\n"}
    targets = {task.target.strip() for seed in range(20) for task in made_of(sources(twice), seed=seed).tasks}
    assert "cart = Cart(owner)" not in targets and len(targets) > 5


def test_the_seed_decides_and_nothing_else() -> None:
    names = ("cart", "number", "other", "order", "item", "LIMIT")
    files = [source(f"a/f{n}.py", SHOP["shop/order.py"]) for n in range(6)]
    for n, file in enumerate(files):
        text = re.sub(rf"\b({'|'.join(names)})(?=\W)", rf"\1_{n}", file.text).replace(".price", "shop.price")
        files[n] = replace(file, text=text)
    files += sources(SHOP)
    first = made_of(files)
    assert made_of(list(reversed(files))) == first
    assert {task.id for task in made_of(files, seed=2).tasks} != {task.id for task in first.tasks}
    fewer = made_of(files, max_tasks=2)
    assert dict.fromkeys(repository_tasks.SETTINGS, 2) == {
        setting: sum(task.setting == setting for task in fewer.tasks) for setting in repository_tasks.SETTINGS
    }
    assert {task.id for task in fewer.tasks} <= {task.id for task in first.tasks}
    assert fewer.dropped_lines["more than 2 of a language and setting"] == len(first.tasks) - 6


def test_every_file_and_line_that_is_left_out_is_counted() -> None:
    files = sources(SHOP | {"copy.py": SHOP["shop/price.py"], "broken.py": "def f(:\n"})
    made = made_of(files)
    assert made.dropped_files == {"a copy of another file": 1, "a syntax error": 1}
    again = made_of(sources(SHOP))
    assert {task.target for task in made.tasks} == {task.target for task in again.tasks}
    lines = sum(again.dropped_lines.values()) + len(again.tasks)
    analysed = analyse(sources(SHOP), {})
    assert lines == sum(row not in each.quiet for each in analysed.values() for row in each.names)
    kept, dropped = repository_tasks.distinct([*again.tasks, *(replace(task, id="x") for task in again.tasks)])
    assert kept == again.tasks and dropped == {"the same line in another repository": len(kept)}


def test_much_that_is_imported_is_cut_at_a_line() -> None:
    big = "".join(f"value_{n} = {n}\n" for n in range(8_000))
    many = SHOP | {"shop/cart.py": SHOP["shop/cart.py"] + big, "shop/price.py": SHOP["shop/price.py"]}
    (task,) = [
        t for t in made_of(sources(many)).tasks if t.path == "shop/order.py" and t.setting == "cross_file_random"
    ]
    assert sum(len(file.text) for file in task.imported) <= MAX_IMPORTED_CHARS
    assert task.imported[0].path == "shop/cart.py" and many["shop/cart.py"].startswith(task.imported[0].text)
    assert task.imported[0].text.endswith("\n") and len(task.retrieved) <= 5


def test_hostile_files_are_survived() -> None:
    deep = [
        source("deep.py", "x = " + "(" * 80_000 + ")" * 80_000 + "\n"),
        source("deep.js", "[" * 200_000, "JavaScript"),
    ]
    odd = [source("odd.py", "a\u2028b = 1\nfrom . import x\nfrom .......... import y\nimport é.ü\n\f\n\x00\n")]
    made = syntax.with_large_stack(lambda: made_of([*deep, *odd, *sources(SHOP)]))
    assert {task.path for task in made.tasks} == {"shop/cart.py", "shop/order.py"}


def test_a_repository_gives_the_same_tasks_bare_or_not(tmp_path: Path) -> None:
    other: dict[str, str | bytes] = {
        "README.md": "# Shop\n",
        "node_modules/x/index.js": "module.exports = function vendored() { return 1; };\n",
        "shop/model_pb2.py": "# Generated by the protocol buffer compiler.  DO NOT EDIT!\nx_value = 1\n",
        "shop/data.py": f"table_of_values = '{'x' * 2_000}'\n",
        "shop/latin.py": b"caf\xe9 = 1\n",
        "shop/long.py": "x = 1\n" * 60_000,
        "shop/windows.py": (
            "\ufefffrom shop.cart import Cart\r\n\r\none = 1\r\ntwo = 2\r\nbasket = Cart(one + two)\r\n"
        ),
    }
    plain = committed(tmp_path / "plain" / "shop", SHOP | other)
    bare = committed(tmp_path / "bare" / "shop", SHOP | other, bare=True)
    outs = [tmp_path / "out1", tmp_path / "out2"]
    summaries = [building.make([str(place)], out) for place, out in zip((plain, bare), outs, strict=True)]
    files = [(out / DATA.folder / DATA.files[0]).read_bytes() for out in outs]
    assert files[0] == files[1]
    assert summaries[0].dropped_files == {
        "generated, minified or data": 2,
        "no language that is asked for": 1,
        "vendored": 1,
        "not UTF-8": 1,
        "longer than 256 KiB": 1,
    }
    tasks = read_back(outs[0])
    assert "basket = Cart(one + two)" in {task.target for task in tasks}
    assert all("\r" not in task.before and not task.before.startswith("\ufeff") for task in tasks)
    held = json.loads((outs[0] / DATA.folder / "summary.json").read_text())
    assert held["repositories"] == [
        {"name": "shop", "revision": tasks[0].revision, "num_files": 5, "num_tasks": len(tasks)}
    ]
    assert held["tasks"]["Python"] == {
        setting: sum(task.setting == setting for task in tasks) for setting in repository_tasks.SETTINGS
    }


def test_repositories_without_a_line_to_ask_for_are_explained(tmp_path: Path) -> None:
    empty = committed(tmp_path / "empty", {"README.md": "# nothing\n"})
    with pytest.raises(InputError, match=r"no line of .*empty can be asked for.*no language that is asked for: 1"):
        building.make([str(empty)], tmp_path / "out")
    with pytest.raises(InputError, match="not a Git repository"):
        building.make([str(tmp_path)], tmp_path / "out")
    with pytest.raises(InputError, match="is not on this machine; clone it"):
        building.make(["https://example.org/a/b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tasks_of_this_project(tmp_path: Path) -> None:
    """Real input: the newest commit of the checkout that the tests are in."""
    if not (PROJECT / ".git").exists():
        pytest.skip("the project is not in a Git checkout")
    called = CliRunner().invoke(
        app, ["repository-tasks", str(PROJECT), "--out", str(tmp_path), "--max-tasks", "30", "--json"]
    )
    assert called.exit_code == 0, called.output
    summary = json.loads(called.output)
    assert summary["tasks"]["Python"] == dict.fromkeys(repository_tasks.SETTINGS, 30)
    tasks = read_back(tmp_path)
    assert len({task.target.strip() for task in tasks}) == len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        bare = task.target.strip()
        assert bare not in [line.strip() for line in task.before.split("\n")]
        assert not any(bare in file.text for file in (*task.imported, *task.retrieved))
        assert all(file.path != task.path for file in (*task.imported, *task.retrieved))
        if task.setting != "in_file":
            assert task.imported
    for shown in ("imported", "retrieved", "nothing"):
        benchmark = RepositoryCompletion(data=tmp_path, shown=shown)
        problems = benchmark.load()
        assert len(problems) == len(tasks)
        for problem in problems:
            for check in benchmark.checks(problem):
                assert (benchmark.score(problem, 0, check.candidate, []).label == "pass") == check.passes


def test_a_file_of_tasks_is_read_as_written_and_bad_ones_are_explained(tmp_path: Path) -> None:
    tasks = made_of(sources(SHOP)).tasks
    path = tmp_path / DATA.folder / DATA.files[0]
    repository_tasks.write(path, tasks)
    assert repository_tasks.read(path) == tasks
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    path.unlink()
    for changes, message in (
        ({"version": 2}, "task 1: it is not of version 1; make the tasks again"),
        ({"setting": "cross"}, "no setting 'cross'"),
        ({"imported": [{"path": "x"}]}, "imported must be objects with path and text"),
        ({"line": "1"}, "line must be int"),
    ):
        written_rows(tmp_path, f"{DATA.folder}/tasks.jsonl", [rows[0] | changes])
        with pytest.raises(InputError, match=message):
            RepositoryCompletion(data=tmp_path).load()
    with pytest.raises(MissingDataError, match="starsmith repository-tasks REPOSITORY"):
        RepositoryCompletion(data=tmp_path / "none").load()


def test_the_prompt_is_a_training_document_that_ends_before_the_line() -> None:
    inputs = {
        "repository": "someone/shop",
        "path": "shop/order.py",
        "files": [{"path": "shop/cart.py", "text": "class Cart: ...\n"}],
        "prompt": "from shop.cart import Cart\n",
        "middle": "cart = Cart()",
        "words": "python",
    }
    benchmark = RepositoryCompletion()
    problem = Problem(id="x", group="Python/cross_file_first", inputs=inputs)
    (request,) = benchmark.requests(problem)
    shown = "".join(
        (*request.before, *(f"{piece}{request.separator}" for piece in request.context), request.prompt)
    )
    assert shown == (
        "<repo_name>someone/shop<file_sep>shop/cart.py\nclass Cart: ...\n<file_sep>shop/order.py\n"
        "from shop.cart import Cart\n"
    )
    assert benchmark.texts(problem) == ["from shop.cart import Cart\ncart = Cart()"]
    assert request.context_share == 0.5 and "<file_sep>" in request.stop and request.temperature == 0.0
    answers = {
        "\n# so\n  cart  =  Cart()\nmore": ("pass", 0.93, True),
        "cart = Basket()": ("wrong", 0.79, True),
        "# nothing": ("wrong", None, False),
        "": ("wrong", 0.0, False),
    }
    for text, (label, value, extracted) in answers.items():
        candidate = benchmark.extract(problem, Completion(text=text))
        score = benchmark.score(problem, 0, candidate, [])
        assert (score.label, candidate.extracted) == (label, extracted) and value in (None, score.value), text
    assert (
        "identifier_f1=0.5"
        in benchmark.score(problem, 0, benchmark.extract(problem, Completion(text="cart = Basket()")), []).detail
    )


def test_a_whole_evaluation_on_what_was_made(tmp_path: Path) -> None:
    place = committed(tmp_path / "shop", SHOP)
    building.make([str(place)], tmp_path / "data")
    targets = {task.id: task.target for task in read_back(tmp_path / "data")}
    shown: dict[str, set[int]] = {}

    def script(request: Request) -> str:
        shown.setdefault(name, set()).add(len(request.context) - 1)
        return f"{targets[request.problem]}\nmore" if "order.py" in request.problem else "pass"

    for name in ("repository_completion", "repository_completion_retrieved", "repository_completion_in_file"):
        assert registry.BENCHMARKS[name].in_paper is False
        config = recipe.Evaluation(benchmarks=(name,), data=tmp_path / "data")
        results = runner.evaluate(ScriptedBackend(script), config, heldout=[], folder=tmp_path / name)
        own = results["benchmarks"][name]
        of_order = sum("order.py" in place for place in targets)
        assert own["estimates"]["exact_match"]["value"] == pytest.approx(of_order / len(targets))
        assert own["estimates"]["exact_match/cross_file_random"]["value"] == 1.0
        assert own["estimates"].keys() >= {"edit_similarity", "identifier_exact_match", "identifier_f1/in_file"}
        assert own["preflight"]["num_references_passed"] == own["preflight"]["num_empty_answers_failed"]
    assert shown["repository_completion_in_file"] == {0} and max(shown["repository_completion"]) == 3

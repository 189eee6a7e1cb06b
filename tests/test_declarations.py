"""What a factory declares that can be no option is said wherever its plugin is looked at, not first in a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import one_sentence
from test_plugins import ACQUIRER, RUN

from alseg.errors import UserMistake
from alseg.pieces import BrokenPiece
from alseg.plugins import load_plugins
from alseg.testing import ContractError, check_acquirer

IMPORTS = (
    "from pathlib import Path\nfrom typing import Annotated, Any, Literal\nfrom alseg.options import Between, Size\n"
)
TEXT = "which no text can give"
BROKEN = {
    "k": "its option 'k' has no type: write k: TYPE, one of int, float, bool, str, Path",
    "k=None": "its option 'k' has no type: write k: TYPE",
    "k=(1, 2)": "its option 'k' has no type: write k: TYPE",
    "k: Any = 1": TEXT,
    "k: dict = {}": f"its option 'k' is of type dict, {TEXT}",
    "k: dict[str, int] | None = None": f"its option 'k' is of type dict[str, int] | None, {TEXT}",
    "k: list[int] = [1]": f"its option 'k' is of type list[int], {TEXT}; options are of int, float",
    "k: tuple = (1,)": "tuple[int, ...]",
    "k: 'tuple[list[int], ...]' = ()": TEXT,
    "k: int = 'ten'": "its option 'k' takes a whole number, which its own default 'ten' is not",
    "k: int = True": "True is not",
    "k: int = None": "None is not: its type is then int | None",
    "k: float = float('inf')": "its own default inf is not",
    "k: Path = 'x'": "takes a path, which its own default 'x' is not",
    "k: Size = '64x64'": "'64x64' is not",
    "k: tuple[int, int] = (1, 2, 3)": "(1, 2, 3) is not",
    "k: Annotated[int, Between(1, 5)] = 9": "takes a whole number from 1 to 5, which its own default 9 is not",
    "k: Annotated[tuple[float, ...], Between(0)] = (1, -1)": "(1, -1) is not",
    "k: Literal['low', 'high'] = 'medium'": "takes low or high, which its own default 'medium' is not",
    "k: Literal[1, 2] = '1'": "'1' is not",
    "k: int | str = '5'": "makes 5 of its own default '5': put str first",
    "k: Path | str = 'default'": "of its own default 'default': put str first",
    "k: int = 1, **more": "takes **more",
    "*numbers": "takes *numbers",
    "k, /": "takes 'k' by position only",
    "name: str = 'x'": "must not be called 'name'",
    "selector": "its parameter 'selector' is no option, and a modifier takes a piece of its own kind alone",
    "new_model: Any": "as 'acquirer' or 'new_acquirer'",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A file with all of them, and a piece that is as it should be."""
    path = tmp_path_factory.mktemp("plugins") / "bad_options.py"
    names = {f"bad-{number}": parameters for number, parameters in enumerate(BROKEN)}
    lines = [f"    register({name!r}, bad_{n})\n" for n, name in enumerate(names)]
    text = IMPORTS + ACQUIRER.replace("    register('mine', mine)\n", "    register('good', good)\n" + "".join(lines))
    text += "".join(f"def bad_{n}({parameters}): return len\n" for n, parameters in enumerate(names.values()))
    good = "def good(top: int = 1, mode: str | None = 'none'): return lambda batch: batch.noise('x').float()\n"
    path.write_text(text + good)
    return path


def test_a_declaration_that_cannot_work_is_said_wherever_the_piece_is_looked_at(cli, broken, tmp_path):
    rows = {row["name"]: row for row in json.loads(cli("plugins", "--json", "--plugin", broken).out)}
    assert rows["good"]["status"] == rows["margin"]["status"] == "ok"
    registry = load_plugins([broken])
    for number, words in enumerate(BROKEN.values()):
        name = f"bad-{number}"
        assert rows[name]["status"] == "failed", name
        start = f"The acquirer '{name}' of {broken} (plugin bad_options) is broken: "
        assert rows[name]["error"].startswith(start)
        assert words in rows[name]["error"]
        with pytest.raises(BrokenPiece, match=f"^The acquirer '{name}' of "):
            registry.find("acquirer", f"power:{name}").resolve({})
    shown = cli("plugins", "show", "bad-0", "--plugin", broken)
    assert shown.code == 0
    assert f"failed: The acquirer 'bad-0' of {broken} (plugin bad_options) is broken: its option 'k'" in shown.out
    table = cli("plugins", "--kind", "acquirer", "--plugin", broken)
    assert table.code == 0
    assert table.out.count("is broken: ") == len(BROKEN)
    words = ("--plugin", broken, *RUN, "--out", tmp_path / "run", "--acquirer")
    one_sentence(cli(*words, "bad-9"), "'bad-9'", "plugin bad_options", "own default 'ten' is not", code=1)
    one_sentence(cli(*words, "bad-9", "-o", "acquirer.k=3"), "own default 'ten' is not", code=1)
    assert not (tmp_path / "run").exists()


def test_a_path_by_default_is_that_of_where_the_run_began(plugin, tmp_path, monkeypatch):
    source = """
from pathlib import Path
from alseg import hookimpl
def filed(table: Path = Path("table.csv"), other: Path | None = None):
    return lambda batch: batch.prediction.entropy()
@hookimpl
def register_acquirers(register):
    register("filed", filed)
"""
    piece = load_plugins([plugin(source)]).find("acquirer", "filed")
    monkeypatch.chdir(tmp_path)
    assert piece.resolve({}) == {"table": Path.cwd() / "table.csv", "other": None}
    assert piece.resolve({"table": "table.csv"}) == piece.resolve({})


def test_what_a_class_inherits_is_not_its_own_declaration():
    from torch import nn

    from alseg.protocols import Acquirer

    class Module(nn.Module):
        def __call__(self, batch):
            return batch.prediction.entropy()

    class Mine(Acquirer):
        def __call__(self, batch):
            return batch.prediction.entropy()

    for _ in range(2):  # a protocol's class gets another __init__ when it is first called
        assert check_acquirer(Module).name == "Module"
        assert check_acquirer(Mine).name == "Mine"


def test_the_kit_says_so_too():
    def bad(k: int = "ten"):  # type: ignore[assignment]
        return len

    def needs(k: int):
        return len

    with pytest.raises(ContractError, match=r"its factory is refused: its option 'k' takes .*\(check builds\)"):
        check_acquirer(bad)
    with pytest.raises(UserMistake):
        check_acquirer(needs)

"""A build of a later commit is newer to apt and dnf."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package_tools import ROOT, run

ASK = "import sys; sys.path.insert(0, sys.argv[1]); import build; print(build.version())"


class Tree:
    """A repository with nothing in it but the version."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "packaging").mkdir(parents=True)
        for module in (ROOT / "packaging").glob("*.py"):
            shutil.copyfile(module, root / "packaging" / module.name)

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=tests", "-c", "user.email=", "-c", "init.defaultBranch=main")
        return run("git", "-C", self.root, *identity, *arguments).strip()

    def commit(self, version: str) -> None:
        (self.root / "pyproject.toml").write_text(f'[project]\nname = "x"\nversion = "{version}"\n')
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "one more")

    def version(self) -> str:
        packaging = self.root / "packaging"
        return run(sys.executable, "-B", "-c", ASK, packaging).strip()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    tree = Tree(tmp_path / "tree")
    tree.git("init", "--quiet")
    tree.commit("1.0.0")
    tree.commit("1.1.0")
    return tree


def test_the_commit_that_sets_the_version_has_it_alone(tree: Tree) -> None:
    assert "1.1.0" == tree.version()


def test_a_later_commit_says_how_many_later_and_which(tree: Tree) -> None:
    tree.commit("1.1.0")
    tree.commit("1.1.0")
    assert f"1.1.0+2.g{tree.git('rev-parse', 'HEAD')[:7]}" == tree.version()


def test_without_git_it_is_the_plain_one(tree: Tree) -> None:
    tree.commit("1.1.0")
    shutil.rmtree(tree.root / ".git")
    assert "1.1.0" == tree.version()


def test_a_tree_within_another_repository_is_not_counted_by_that(tree: Tree) -> None:
    inner = Tree(tree.root / "unpacked")
    (inner.root / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    tree.commit("1.1.0")
    assert "1.1.0" == inner.version()


def test_a_shallow_clone_cannot_count(tree: Tree, tmp_path: Path) -> None:
    tree.commit("1.1.0")
    run("git", "clone", "--quiet", "--depth=1", f"file://{tree.root}", tmp_path / "shallow")
    clone = Tree.__new__(Tree)
    clone.root = tmp_path / "shallow"
    assert "1.1.0" == clone.version()


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("0.2.0+1.gffffff", "0.2.0"),
        ("0.2.0+10.g0000000", "0.2.0+9.gfffffff"),
        ("0.2.1", "0.2.0+9.gfffffff"),
    ],
)
def test_package_managers_see_the_later_build_as_newer(newer: str, older: str) -> None:
    if shutil.which("dpkg") is None or shutil.which("rpm") is None:
        pytest.skip("needs dpkg and rpm")
    assert 0 == subprocess.run(["dpkg", "--compare-versions", newer, "gt", older], check=False).returncode
    assert "1" == run("rpm", "--eval", f'%{{lua:print(rpm.vercmp("{newer}", "{older}"))}}').strip()


def test_a_directory_keeps_the_newest_build_of_each_kind_alone(tmp_path: Path) -> None:
    made, target = tmp_path / "x_1.1.0+2.gabc_amd64.deb", tmp_path / "dist"
    target.mkdir()
    for name in (made.name, "x_1.0.0_amd64.deb", "x_1.1.0+1.gabc_amd64.deb", "x_1.0.0_arm64.deb", "x-1.0.0.whl"):
        (target / name).touch()
    made.write_text("new")
    place = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import build; "
    place += "print(build.place(*map(pathlib.Path, sys.argv[2:4]), sys.argv[4]))"
    told = run(sys.executable, "-B", "-c", place, ROOT / "packaging", made, target, "1.1.0+2.gabc")
    assert f"{target / made.name}\n" == told
    assert [made.name, "x-1.0.0.whl", "x_1.0.0_arm64.deb"] == sorted(
        (path.name for path in target.iterdir()), key=lambda name: (name != made.name, name)
    )
    assert "new" == (target / made.name).read_text()

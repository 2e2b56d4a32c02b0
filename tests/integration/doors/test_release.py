"""What .ci/release.py makes, and what it refuses."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from wheels import REPOSITORY, run, sources

SCRIPT = REPOSITORY / ".ci" / "release.py"
VERSION = "9.1.0"
NOTES = f"# Changelog\n\n## [{VERSION}] - 2026-11-30\n\n### Added\n\n- Much.\n\n## [0.1.0] - 2026-11-21\n\n- All.\n"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("release_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(tree: Path, *words: str) -> str:
    name = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(["git", *name, *words], cwd=tree, capture_output=True, text=True, check=True).stdout


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "A change")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A repository that holds what is released."""
    tree = sources(tmp_path, VERSION)
    (tree / ".ci").mkdir()
    (tree / ".ci" / "release-tools.txt").write_text((REPOSITORY / ".ci" / "release-tools.txt").read_text())
    (tree / "CHANGELOG.md").write_text(NOTES)
    git(tree, "init", "--quiet")
    commit(tree)
    return tree


@pytest.fixture
def refused(tree: Path) -> Callable[..., list[str]]:
    """Tries to release the tree, and returns why it is refused."""

    def refused(*words: str) -> list[str]:
        argv = [sys.executable, SCRIPT, *words]
        done = subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1, done
        assert git(tree, "tag").split() in ([], [f"v{VERSION}"])
        return [line.removeprefix("refused: ") for line in done.stderr.splitlines()]

    return refused


def test_nothing_but_a_clean_new_and_described_version_is_released(
    tree: Path, refused: Callable[..., list[str]]
) -> None:
    git(tree, "tag", f"v{VERSION}")
    (tree / "CHANGELOG.md").write_text(NOTES.replace("- Much.\n", "").replace("### Added\n", ""))
    (tree / "torch_tasks" / "stray.py").touch()
    dirty, tagged, undescribed = refused()
    assert dirty == "the tree is not clean: CHANGELOG.md, torch_tasks/stray.py; commit it, or put it away"
    assert tagged == f"{VERSION} is released: there is the tag v{VERSION}; raise VERSION"
    assert undescribed.startswith(f"CHANGELOG.md has no section '## [{VERSION}] - ")
    (tree / "VERSION").write_text("next\n")
    assert refused()[0] == "VERSION holds 'next'; write it as 1.2.3"


def test_what_the_machines_share_does_not_change_without_a_word_on_the_format(tree: Path, script: ModuleType) -> None:
    git(tree, "tag", "v9.0.0")
    assert list(script.faults(tree, VERSION, same_format=False)) == []
    node, form = tree / "torch_tasks/model/node.py", tree / script.FORMAT_FILE
    node.write_text(node.read_text() + "# another field\n")
    commit(tree)
    [fault] = script.faults(tree, VERSION, same_format=False)
    assert fault.startswith("since v9.0.0 torch_tasks/model/node.py changed, and torch_tasks/model/fleet_format.py has")
    assert list(script.faults(tree, VERSION, same_format=True)) == []
    form.write_text(re.sub(r"^FORMAT = \d+", "FORMAT = 77", form.read_text(), flags=re.MULTILINE))
    commit(tree)
    assert list(script.faults(tree, VERSION, same_format=False)) == []


@pytest.mark.slow
def test_it_builds_the_same_bytes_twice(
    tree: Path, tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = [word for word in (tree / ".ci" / "release-tools.txt").read_text().split() if "cyclonedx" not in word]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--target", tmp_path / "tools", *tools, cwd=tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "tools"))
    source, wheel = sorted(script.built_twice(Path(sys.executable), tree, tmp_path / "work", "1700000000"))[::-1]
    assert [source.name, wheel.name] == [f"torch_tasks-{VERSION}.tar.gz", f"torch_tasks-{VERSION}-py3-none-any.whl"]
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"torch_tasks/workers/tmux/tmux.conf", "torch_tasks/beat/scheduler.py", "torch_tasks/py.typed"} <= names
    with tarfile.open(source) as archive:
        assert {member.mtime for member in archive.getmembers()} == {1700000000}


def test_what_is_not_the_same_bytes_twice_is_refused(
    tree: Path, tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def that_notes_its_folder(_: Path, source: Path, out: Path, __: str) -> list[Path]:
        """A build tool that notes where it worked."""
        out.mkdir()
        (out / "one.whl").write_text(f"{source}")
        return [out / "one.whl"]

    monkeypatch.setattr(script, "build", that_notes_its_folder)
    with pytest.raises(script.Refused, match=r"one\.whl was built twice, and is not the same"):
        script.built_twice(Path(sys.executable), tree, tmp_path / "again", "1700000000")


def test_where_the_files_come_from_is_stated_and_signed(tree: Path, tmp_path: Path, script: ModuleType) -> None:
    file = tmp_path / "torch_tasks-9.1.0.tar.gz"
    file.write_bytes(b"hello")
    statement = script.statement_of([file], tree, VERSION, datetime.now(UTC))
    [subject] = statement["subject"]
    assert subject["digest"] == {"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    made_of = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert made_of[0]["digest"] == {"gitCommit": git(tree, "rev-parse", "HEAD").strip()}
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    envelope = script.envelope_of(json.dumps(statement).encode(), key, tmp_path)
    payload = base64.b64decode(envelope["payload"])
    assert json.loads(payload) == statement

    def holds(signed: bytes) -> bool:
        (tmp_path / "message").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(signed), signed))
        (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
        argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public]
        files = ["-in", tmp_path / "message", "-sigfile", tmp_path / "sig"]
        return subprocess.run([*argv, *files], capture_output=True, check=False).returncode == 0

    assert holds(payload)
    assert not holds(payload.replace(b"9.1.0", b"9.1.1"))


def test_each_licence_is_listed_as_the_bill_has_it(script: ModuleType) -> None:
    bill = {
        "components": [
            {
                "name": "b",
                "version": "2",
                "licenses": [{"license": {"id": "MIT"}}, {"license": {"name": "Own  words"}}],
            },
            {"name": "A", "version": "1", "licenses": [{"expression": "Apache-2.0 OR MIT"}]},
            {"name": "c", "version": "3"},
        ]
    }
    rows = script.licences_in(bill).splitlines()[2:]
    assert rows == ["| A | 1 | Apache-2.0 OR MIT |", "| b | 2 | MIT, Own words |", "| c | 3 | not stated |"]

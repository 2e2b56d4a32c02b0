#!/usr/bin/env python3
"""Makes a release from what is committed: builds it, describes it, signs that, and tags the commit.

    .ci/release.py [--key FILE] [--same-format] [--no-tag]

It is refused unless the tree is clean, VERSION is one that has no tag, and the changelog has a dated section for it.
Wheel and source distribution are built twice, in two folders, and must be the same bytes. They lie in dist/VERSION/
then, with an SBOM (CycloneDX), the licences of all that they bring along, where they come from (an in-toto statement
with a provenance as SLSA has it; with --key, an Ed25519 key as PEM, also signed as DSSE), and the digests of all.
Nothing is published: the last lines say how. What it needs from PyPI is in .ci/release-tools.txt.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

TOOLS = "release-tools.txt"
FORMAT_FILE = "torch_tasks/model/fleet_format.py"
SHARED = (
    "torch_tasks/model",
    "torch_tasks/store",
    "torch_tasks/transport",
    "torch_tasks/keys.py",
    "torch_tasks/signing",
)
"""What writes the format that the machines of a fleet share."""
PAYLOAD = "application/vnd.in-toto+json"
BUILD_TYPE = "https://github.com/python/build"
CLASSIFIER = "License :: OSI Approved :: "


class Refused(Exception):
    """There is no release; the text says why, a line for each reason."""


def run(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What the command prints; :class:`Refused` with what it said if it fails."""
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{Path(argv[0]).name} {' '.join(map(str, argv[1:]))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def section_of(changelog: str, version: str) -> str:
    """The dated section of this version; empty if there is none."""
    head = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    found = re.search(rf"{head}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def faults(tree: Path, version: str, *, same_format: bool) -> Iterator[str]:
    """What keeps this tree from being released."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        yield f"VERSION holds {version!r}; write it as 1.2.3"
    if changed := run("git", "status", "--porcelain", cwd=tree).splitlines():
        yield f"the tree is not clean: {', '.join(line[3:] for line in changed)}; commit it, or put it away"
    if run("git", "tag", "--list", f"v{version}", cwd=tree).strip():
        yield f"{version} is released: there is the tag v{version}; raise VERSION"
    if not section_of((tree / "CHANGELOG.md").read_text(), version):
        yield f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with something in it"
    if not same_format:
        yield from format_faults(tree)


def format_faults(tree: Path) -> Iterator[str]:
    """A format that is that of the last release although what writes it is not."""
    tags = run("git", "tag", "--list", "v*", "--sort=-v:refname", "--merged", "HEAD", cwd=tree).split()
    if not tags:
        return
    changed = run("git", "diff", "--name-only", tags[0], "HEAD", "--", *SHARED, cwd=tree).split()
    former = run("git", "show", f"{tags[0]}:{FORMAT_FILE}", cwd=tree)
    if changed and _format_in(former) == _format_in((tree / FORMAT_FILE).read_text()):
        yield (
            f"since {tags[0]} {', '.join(changed)} changed, and {FORMAT_FILE} has the same FORMAT: raise it, or say "
            "--same-format if you have seen that each of the two releases reads what the other one writes"
        )


def _format_in(text: str) -> str | None:
    found = re.search(r"^FORMAT = (\d+)$", text, re.MULTILINE)
    return found[1] if found else None


def build(python: Path, tree: Path, out: Path, epoch: str) -> list[Path]:
    """A source distribution of the tree, and the wheel of that."""
    argv = (python, "-m", "build", "--no-isolation", "--outdir", out, tree)
    run(*argv, env={"SOURCE_DATE_EPOCH": epoch, "PYTHONDONTWRITEBYTECODE": "1"})
    return sorted(out.iterdir())


def built_twice(python: Path, tree: Path, work: Path, epoch: str) -> list[Path]:
    """What is built of the tree's last commit; :class:`Refused` if a second time makes other bytes."""
    results = []
    for number in ("first", "second"):
        source, out = work / number / "tree", work / number / "out"
        source.mkdir(parents=True)
        run("git", "archive", "--output", work / f"{number}.tar", "HEAD", cwd=tree)
        run("tar", "-xf", work / f"{number}.tar", "-C", source)
        results.append(build(python, source, out, epoch))
    for one, other in zip(*results, strict=True):
        if one.name != other.name or digest(one) != digest(other):
            raise Refused(f"{one.name} was built twice, and is not the same: see {one} and {other}")
    return results[0]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def environment(tree: Path, wheel: Path, work: Path) -> Path:
    """The Python of an environment in which the wheel is installed with what belongs to it, in the tested versions."""
    run(sys.executable, "-m", "venv", "--without-pip", work / "env")
    python = work / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--constraint", tree / "constraints.txt", f"{wheel}[push,age]")
    return python


def bill_of(tools: Path, python: Path, wheel: Path, version: str, epoch: str) -> dict[str, Any]:
    """The SBOM of that environment, with nothing of this machine in it."""
    argv = (tools.with_name("cyclonedx-py"), "environment", "--output-reproducible", "--short-PURLs", "--of", "JSON")
    bill: dict[str, Any] = json.loads(run(*argv, python, env={"SOURCE_DATE_EPOCH": epoch}))
    for component in bill["components"]:
        references = component.get("externalReferences", [])
        component["externalReferences"] = [one for one in references if not one["url"].startswith("file:")]
    own = next(one for one in bill["components"] if one["name"] == "torch-tasks")
    if own["version"] != version:
        raise Refused(f"{wheel.name} installs torch-tasks {own['version']}, and VERSION is {version}")
    own["hashes"] = [{"alg": "SHA-256", "content": digest(wheel)}]
    return bill


def licences_in(bill: dict[str, Any]) -> str:
    """A table of the licences that an SBOM names."""
    lines = ["| package | version | licence |", "| --- | --- | --- |"]
    for component in sorted(bill["components"], key=lambda one: one["name"].lower()):
        named = [
            one.get("expression") or one["license"].get("id") or one["license"].get("name")
            for one in component.get("licenses", [])
        ]
        short = (" ".join(name.removeprefix(CLASSIFIER).split())[:100] for name in named)
        stated = ", ".join(dict.fromkeys(short)) or "not stated"
        lines.append(f"| {component['name']} | {component['version']} | {stated} |")
    return "\n".join(lines) + "\n"


def statement_of(files: Sequence[Path], tree: Path, version: str, began: datetime) -> dict[str, Any]:
    """Where these files come from: an in-toto statement with a provenance as SLSA has it."""
    commit = run("git", "rev-parse", "HEAD", cwd=tree).strip()
    tools = (tree / ".ci" / TOOLS).read_text().split()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": digest(file)}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": version, "script": ".ci/release.py"},
                "internalParameters": {"python": sys.version.split()[0]},
                "resolvedDependencies": [
                    {"name": "torch-tasks", "digest": {"gitCommit": commit}},
                    *({"uri": f"pkg:pypi/{tool.replace('==', '@')}"} for tool in tools),
                ],
            },
            "runDetails": {
                "builder": {"id": os.environ.get("RELEASE_BUILDER", "by-hand")},
                "metadata": {
                    "startedOn": f"{began:%Y-%m-%dT%H:%M:%SZ}",
                    "finishedOn": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                },
            },
        },
    }


def envelope_of(statement: bytes, key: Path, work: Path) -> dict[str, Any]:
    """The statement, signed with this key (DSSE)."""
    pae = work / "signed"
    pae.write_bytes(b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(statement), statement))
    run("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", pae, "-out", work / "signature")
    run("openssl", "pkey", "-in", key, "-pubout", "-outform", "DER", "-out", work / "public")
    signature = base64.b64encode((work / "signature").read_bytes()).decode()
    signed = {"keyid": digest(work / "public"), "sig": signature}
    return {"payloadType": PAYLOAD, "payload": base64.b64encode(statement).decode(), "signatures": [signed]}


def release(tree: Path, version: str, key: Path | None, work: Path) -> list[Path]:
    """Make all files of the release in the working folder."""
    began, out = datetime.now(UTC), work / "out"
    epoch = run("git", "log", "-1", "--format=%ct", cwd=tree).strip()
    run(sys.executable, "-m", "venv", work / "tools")
    tools = work / "tools" / "bin" / "python"
    run(tools, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", tree / ".ci" / TOOLS)
    out.mkdir()
    files = [Path(shutil.copy2(file, out)) for file in built_twice(tools, tree, work, epoch)]
    (wheel,) = out.glob("*.whl")
    bill = bill_of(tools, environment(tree, wheel, work), wheel, version, epoch)
    name = f"torch_tasks-{version}"
    for ending, text in ((".cdx.json", json.dumps(bill, indent=1) + "\n"), (".licences.md", licences_in(bill))):
        files.append(out / f"{name}{ending}")
        files[-1].write_text(text)
    statement = json.dumps(statement_of(files, tree, version, began), indent=1).encode() + b"\n"
    files.append(out / f"{name}.provenance.json")
    files[-1].write_bytes(statement)
    if key:
        files.append(out / f"{name}.provenance.dsse.json")
        files[-1].write_text(json.dumps(envelope_of(statement, key, work)) + "\n")
    (out / "SHA256SUMS").write_text("".join(f"{digest(file)}  {file.name}\n" for file in files))
    return [*files, out / "SHA256SUMS"]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Make a release from what is committed.")
    parser.add_argument("--key", type=Path, help="sign the provenance with this Ed25519 key (PEM)")
    parser.add_argument("--same-format", action="store_true", help="this release and the last one read each other")
    parser.add_argument("--no-tag", action="store_true", help="make the files, and do not tag the commit")
    asked = parser.parse_args(arguments)
    tree = Path(run("git", "rev-parse", "--show-toplevel").strip())
    version = (tree / "VERSION").read_text().strip()
    if found := list(faults(tree, version, same_format=asked.same_format)):
        raise Refused("\n".join(found))
    with tempfile.TemporaryDirectory(prefix="release-") as work:
        made = release(tree, version, asked.key and asked.key.absolute(), Path(work))
        place = tree / "dist" / version
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for file in made:
            shutil.copy2(file, place)
            print(f"{digest(file)}  {place.relative_to(tree) / file.name}")
    if asked.no_tag:
        return
    words = f"Torch {version}\n\n{section_of((tree / 'CHANGELOG.md').read_text(), version)}"
    run("git", "tag", "--annotate", f"v{version}", "--cleanup", "verbatim", "--message", words, cwd=tree)
    print(f"tagged v{version}; to publish it: git push origin v{version}, and twine upload its .whl and .tar.gz")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        sys.exit("".join(f"refused: {line}\n" for line in str(refused).splitlines()).rstrip())

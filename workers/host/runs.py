"""One try of one task, as files: what was asked, what came out, how it ended."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch_tasks.model.task import TaskResult
from torch_tasks.system.files import write_private


class Run:
    """One try, and its folder."""

    def __init__(self, runs: Path, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.tag = f"task {task_id}"
        self.folder = folder = runs / f"{task_id}.{attempt}"
        self.prompt = folder / "prompt"
        self.context = folder / "context.json"
        self.begun = folder / "begun"
        self.output = folder / "output"
        self.exit = folder / "exit"
        self.halted = folder / "halted"
        self.tree_file = folder / "tree.json"
        self.oom_kills = folder / "oom_kills"
        self.result_file = folder / "result.json"
        self.account_file = folder / "account.json"

    def open(self) -> None:
        """Make an empty folder for a try that nobody has begun."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def result(self) -> TaskResult | None:
        """How the try ended, if it has."""
        try:
            return TaskResult.model_validate_json(self.result_file.read_bytes())
        except FileNotFoundError:
            return None

    def store(self, result: TaskResult) -> None:
        """Keep the end of the try, so that it is told again instead of done again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.result_file, result.model_dump_json(indent=2) + "\n")

    def remember(self, account: Mapping[str, str], message: str | None) -> None:
        """Keep what the task's record says, and the message by which the task came: the broker may forget both.

        An account that is older than the one kept, or none, comes from a broker that has forgotten already.
        """
        kept = self.recall()
        if kept and int(kept[0]["revision"]) > int(account.get("revision", 0)):
            account = kept[0]
        if not account:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.account_file, json.dumps({"account": dict(account), "message": message}) + "\n")

    def recall(self) -> tuple[dict[str, str], str | None] | None:
        """What was kept last, if anything was."""
        try:
            kept = json.loads(self.account_file.read_bytes())
        except FileNotFoundError:
            return None
        return kept["account"], kept["message"]

    def disown(self) -> None:
        """The task is somebody else's by now: this try has nothing to tell."""
        self.account_file.unlink(missing_ok=True)


def tries(runs: Path) -> Iterator[Run]:
    """Every try that is kept in this folder."""
    for file in runs.glob("*/account.json"):
        task_id, attempt = file.parent.name.rsplit(".", 1)
        yield Run(runs, task_id, int(attempt))


def prune(folder: Path, keep_days: float) -> None:
    """Remove the tries that ended longer ago than this."""
    oldest = time.time() - keep_days * 86400
    for result in folder.glob("*/result.json"):
        if result.stat().st_mtime < oldest:
            shutil.rmtree(result.parent)


def head_and_tail(path: Path, limit: int) -> tuple[str, int]:
    """The text of a file, without its middle where it is larger than ``limit`` bytes; and its size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= limit:
                return file.read().decode(errors="replace"), size
            head = file.read(limit // 2)
            file.seek(size - limit // 2)
            tail = file.read()
    except FileNotFoundError:
        return "", 0
    left_out = size - len(head) - len(tail)
    notice = f"\n… {left_out:,} bytes left out, the whole answer is in {path} …\n"
    return head.decode(errors="replace") + notice + tail.decode(errors="replace"), size

"""A stand-in for grading.worker without torch and kernels: `python quick_worker.py FOLDER`.

Points depend on the answers alone, and so many seconds are told as an answer has letters. An answer may ask
for trouble in a comment: `# trouble: die`, `die once`, `crash`, `crash once`, `hang`, `rubbish`, `raise`,
`chatter`, `large` or `sleep SECONDS`.
"""

import json
import os
import re
import signal
import struct
import sys
import time
from pathlib import Path

HEAD = struct.Struct("!Q")
VERSIONS = {"stand-in": "1"}


def record(order: dict) -> dict:
    """A record as a run would give it."""
    questions, answers = {}, {}
    for cell in order["notebook"]["cells"]:
        mark = cell["metadata"].get("nbgrader", {})
        if mark.get("solution"):
            answers[mark["grade_id"].removesuffix("-answer")] = cell["source"]
        elif mark.get("grade"):
            points = sum(answers[mark["grade_id"]].encode()) % (4 * int(mark["points"]) + 1) / 4
            entry = {"points": points, "max_points": float(mark["points"]), "error": None, "cases": []}
            questions[mark["grade_id"]] = entry
    outputs: list = [[] for _ in order["notebook"]["cells"]]
    if "trouble: large" in "".join(answers.values()):
        outputs[1] = [{"output_type": "stream", "name": "stdout", "text": "x" * 2_000_000}]
    told = {"versions": VERSIONS, "seed": order["seed"], "sandbox": "stand-in", "outputs": outputs}
    return {"module": order["module"], "questions": questions, "seconds": 1.0, "peak_mib": 1.0, **told}


def answer(order: dict) -> bytes:
    """The answer to an order, after the trouble that it asks for."""
    source = "\n".join(cell["source"] for cell in order["notebook"]["cells"])
    asked = re.search(r"# trouble: (\w+) ?(\S*)", source)
    what, more = asked.groups() if asked else ("", "")
    if what == "crash" and (not more or not _before(order)):
        return json.dumps({"record": record(order) | {"status": "crashed", "reason": "Cell 3."}}).encode()
    if what == "die" and (not more or not _before(order)):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(1000)
    if what == "sleep":
        time.sleep(float(more))
    if what == "rubbish":
        return b"no JSON"
    if what == "raise":
        return json.dumps({"error": "ValueError: the judge is broken"}).encode()
    if what == "chatter":
        print("a line for the log", file=sys.stderr, flush=True)
    return json.dumps({"record": record(order)}).encode()


def _before(order: dict) -> bool:
    """Whether this was asked before; it is from now on."""
    mark = Path(order["cases_dir"], f"{order['student']}.died")
    mark.parent.mkdir(parents=True, exist_ok=True)
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def main() -> None:
    """Answer orders until the input ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while len(head := sys.stdin.buffer.read(HEAD.size)) == HEAD.size:
        order = json.loads(sys.stdin.buffer.read(HEAD.unpack(head)[0]))
        if "prepare" in order:
            continue
        message = answer(order)
        sys.stdout.buffer.write(HEAD.pack(len(message)) + message)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

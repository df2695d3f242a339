"""A cell's outputs as they may be kept: text and PNG pictures only, within a limit."""

import base64
import binascii
from typing import Any

TEXT_BYTES = 20_000  # of one output
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CUT = "\n[the rest of the output was cut]\n"


class Collector:
    """Gathers a cell's outputs from kernel messages; `left` counts down the bytes that may still be kept.

    >>> collector = Collector([1000])
    >>> collector({"msg_type": "stream", "content": {"name": "stdout", "text": "hello"}})
    >>> collector.outputs
    [{'output_type': 'stream', 'name': 'stdout', 'text': 'hello'}]
    """

    def __init__(self, left: list[int]) -> None:
        self.left = left
        self.outputs: list[dict[str, Any]] = []
        self.cut = False
        self.error = ""

    def __call__(self, message: dict[str, Any]) -> None:
        """Take one message from the kernel; any shape of content is survived."""
        content, kind = message.get("content"), message.get("msg_type")
        if not isinstance(content, dict):
            return
        if kind == "lost":
            self._note_cut()
        elif kind == "stream":
            self._stream(content)
        elif kind in ("display_data", "execute_result"):
            self._display(kind, content)
        elif kind == "error":
            self.error = _text(content.get("ename"))
            lines = content.get("traceback")
            trace = [_text(line) for line in lines] if isinstance(lines, list) else []
            value = _text(content.get("evalue"))
            self._keep({"output_type": "error", "ename": self.error, "evalue": value, "traceback": trace})

    def _stream(self, content: dict[str, Any]) -> None:
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        text = _text(content.get("text"))
        last = self.outputs[-1] if self.outputs else {}
        if last.get("output_type") == "stream" and last["name"] == name and not self.cut:
            if len(last["text"]) + len(text) <= TEXT_BYTES and self._take(len(text)):
                last["text"] = _carriage_returns(last["text"] + text)
            else:
                self._note_cut()
            return
        self._keep({"output_type": "stream", "name": name, "text": _carriage_returns(text)})

    def _display(self, kind: str, content: dict[str, Any]) -> None:
        data = content.get("data")
        if not isinstance(data, dict):
            return
        kept = {"text/plain": _text(data["text/plain"])} if "text/plain" in data else {}
        if _is_png(data.get("image/png")):
            kept["image/png"] = data["image/png"]
        output: dict[str, Any] = {"output_type": kind, "data": kept, "metadata": {}}
        if kind == "execute_result":
            output["execution_count"] = None
        if kept:
            self._keep(output)

    def _keep(self, output: dict[str, Any]) -> None:
        if self.cut:
            return
        if self._take(len(str(output))):
            self.outputs.append(output)
        else:
            self._note_cut()

    def _take(self, size: int) -> bool:
        self.left[0] -= size
        return self.left[0] >= 0

    def _note_cut(self) -> None:
        if not self.cut:
            self.cut = True
            self.outputs.append({"output_type": "stream", "name": "stderr", "text": CUT})


def _text(value: Any) -> str:
    """A string that can be written as UTF-8, cut to size."""
    text = value if isinstance(value, str) else ""
    text = text if len(text) <= TEXT_BYTES else text[:TEXT_BYTES] + CUT
    return text.encode("utf-8", "replace").decode("utf-8")


def _carriage_returns(text: str) -> str:
    """What a terminal would show: a progress bar's last state instead of all of them."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _is_png(value: Any) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode(value, validate=False).startswith(PNG_SIGNATURE)
    except (binascii.Error, ValueError):
        return False

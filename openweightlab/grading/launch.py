"""Start an ipykernel under limits: `python -m openweightlab.grading.launch MEMORY_MIB CONNECTION_FILE`."""

import resource
import sys

FILE_BYTES = 2**28


def main(memory_mib: int, connection_file: str) -> None:
    """Limit this process's own memory, core dumps and file sizes, then become the kernel."""
    data = (
        memory_mib + 1024
    ) * 2**20  # above the watcher's limit: one huge allocation fails at once, politely
    for kind, limit in (("DATA", data), ("CORE", 0), ("FSIZE", FILE_BYTES)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (limit, limit))
    from ipykernel.kernelapp import launch_new_instance
    from ipykernel.zmqshell import ZMQInteractiveShell

    ZMQInteractiveShell.ask_exit = lambda shell: None  # type: ignore[method-assign]  # exit() ends no notebook
    launch_new_instance([f"--f={connection_file}", "--HistoryManager.enabled=False"])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

"""A PostgreSQL server of the tests' own: in a temporary folder, on a Unix socket, gone afterwards."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import psycopg
import pytest


def program(name: str) -> str | None:
    """Where one of the server's programs is; Debian keeps them off the PATH."""
    newest = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return shutil.which(name) or (newest[-1] if newest else None)


class Server:
    """Starts, stops and kills; `url` gives a database's address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.made = 0
        self._run("initdb", "--auth=trust", "--username=owl", "--encoding=UTF8", "--no-sync", self.data)
        settings = "listen_addresses = ''\nfsync = off\nautovacuum = off\n"
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(f"{settings}unix_socket_directories = '{folder}'\n")

    def _run(self, name: str, *arguments: object) -> None:
        """Run a server program; the server refuses to be root, so there it is somebody else."""
        other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        command = [*other, program(name), *map(str, arguments)]
        with open(self.folder / "log", "ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=120, cwd=self.folder)

    def start(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "90", "-l", self.folder / "server.log", "start")

    def stop(self) -> None:
        """End it at once, whoever is connected."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "90", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://owl@/{database}?host={self.folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="owl", dbname=database, autocommit=True)

    def database(self, like: str | None = None) -> str:
        """The address of a new database, empty or with the tables of another."""
        self.made += 1
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE book{self.made} TEMPLATE {like or 'template0'}")
        return self.url(f"book{self.made}")


@contextmanager
def server() -> Iterator[Server]:
    """A running server; skips the test, by name, where there is none to run."""
    lacking = [name for name in ("initdb", "pg_ctl") if not program(name)]
    lacking += ["setpriv"] if os.getuid() == 0 and not shutil.which("setpriv") else []
    if lacking:
        pytest.skip(f"no PostgreSQL server here: {', '.join(lacking)} not found")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        made = Server(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()

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

    def make(self, database: str) -> str:
        """The address of a new, empty database."""
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {database}")
        return self.url(database)

    def empty(self, database: str) -> str:
        """The address of a database whose rows are gone, those of its version of the tables aside."""
        query = (
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        with self.connect(database) as connection:
            tables = ", ".join(name for (name,) in connection.execute(query))
            connection.execute(f"TRUNCATE {tables}")
        return self.url(database)


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

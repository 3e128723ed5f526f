"""A small bounded set of Postgres connections for the sandbox's HTTP API.

It exists so that the sandbox needs no pool library. A connection that died, because the server was
stopped, is replaced when it is next asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow


class Connections:
    """At most `size` connections at a time; a later request waits for one."""

    def __init__(self, dsn: str, *, size: int = 8) -> None:
        self._dsn = dsn
        self._slots = asyncio.Semaphore(size)
        self._idle: list[AsyncConnection[TupleRow]] = []

    async def replica(self) -> "LaggingReplica":
        """Return a replica of the database as it is now, which hears of nothing more."""
        connection = await AsyncConnection.connect(self._dsn, autocommit=True)
        await connection.execute("begin isolation level repeatable read")
        await connection.execute("select 1")  # the first statement decides what it sees
        return LaggingReplica(connection)

    @asynccontextmanager
    async def transaction(
        self, settings: Mapping[str, str]
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Give a connection inside a transaction in which these settings hold.

        They are set by `set_config(…, true)`, as PostgREST does, in the order given. Raises
        psycopg.OperationalError where the server cannot be reached.
        """
        async with self._slots:
            connection = await self._take()
            try:
                async with connection.transaction():
                    for name, value in settings.items():
                        await connection.execute("select set_config(%s, %s, true)", (name, value))
                    yield connection
            finally:
                await self._give_back(connection)

    async def close(self) -> None:
        """Close the connections that no request uses."""
        while self._idle:
            await self._idle.pop().close()

    async def _take(self) -> AsyncConnection[TupleRow]:
        while self._idle:
            connection = self._idle.pop()
            try:
                await connection.execute("select 1")
            except psycopg.OperationalError:
                await connection.close()
            else:
                return connection
        # Plans are not kept: a migration may change a table between two requests.
        return await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=None)

    async def _give_back(self, connection: AsyncConnection[TupleRow]) -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
        else:  # broken, or cut off in the middle of a statement
            await connection.close()


class LaggingReplica:
    """One connection whose transaction sees the database as it was, until it is closed."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection
        self._free = asyncio.Lock()

    @asynccontextmanager
    async def transaction(
        self, settings: Mapping[str, str]
    ) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """Give the connection, with these settings; what is done with it is undone."""
        async with self._free, self._connection.transaction(force_rollback=True):
            for name, value in settings.items():
                await self._connection.execute("select set_config(%s, %s, true)", (name, value))
            yield self._connection

    async def close(self) -> None:
        """Forget what it saw."""
        await self._connection.close()

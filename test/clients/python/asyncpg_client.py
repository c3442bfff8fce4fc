"""One task: the features of asyncpg."""

import asyncio
import json
import ssl
import uuid
from datetime import date, datetime, timezone
from decimal import Decimal

import asyncpg

from report import CLIENT, ITEMS, LOOP, OTHER_CA, RUNNING, SLEEP, THINK_S, TRUSTED_CA, TYPES, run, same


def parts(endpoint):
    keys = ("host", "port", "user", "password", "database")
    return {key: getattr(endpoint, key) for key in keys}


class Connected:
    """A connection for the length of a block."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    async def __aenter__(self):
        self.connection = await asyncpg.connect(**parts(self.endpoint))
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close()


async def failure_of(work):
    try:
        await work
    except asyncpg.PostgresError as error:
        return error
    raise AssertionError("it did not fail")


async def connect(endpoint):
    async with Connected(endpoint) as connection:
        row = await connection.fetchrow("SELECT current_user::text, current_database()::text")
        same(tuple(row), (endpoint.user, endpoint.database))
    wrong = await failure_of(asyncpg.connect(**{**parts(endpoint), "password": "wrong"}))
    same(wrong.sqlstate, "28P01")


async def tls(endpoint):
    verified = lambda authority: asyncpg.connect(**parts(endpoint), ssl=ssl.create_default_context(cafile=authority))
    connection = await verified(TRUSTED_CA)
    same(await connection.fetchval("SELECT 1"), 1)
    await connection.close()
    try:
        await verified(OTHER_CA)
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("somebody else was taken for the server")


async def prepared(endpoint):
    async with Connected(endpoint) as connection:
        double = await connection.prepare("SELECT $1::integer * 2")
        word = await connection.prepare("SELECT $1::text || $2")
        for n in range(20):
            same(await double.fetchval(n), 2 * n)
            same(await word.fetchval("n", str(n)), f"n{n}")
        await connection.executemany(f"SELECT $1::integer", [(n,) for n in range(100)])


async def transactions(endpoint):
    async with Connected(endpoint) as connection:
        insert = lambda id: connection.execute(f"INSERT INTO {ITEMS} VALUES ($1, 'note')", id)

        async def ids():
            return [id for (id,) in await connection.fetch(f"SELECT id FROM {ITEMS} ORDER BY id")]

        async def again():
            async with connection.transaction():
                await insert(1)

        await connection.execute(f"DELETE FROM {ITEMS}")
        transaction = connection.transaction()
        await transaction.start()
        await insert(1)
        await transaction.rollback()
        same(await ids(), [])
        async with connection.transaction():
            await insert(1)
            same((await failure_of(again())).sqlstate, "23505")
            await insert(2)
            # A cursor lives as long as its transaction.
            same([id async for (id,) in connection.cursor(f"SELECT id FROM {ITEMS} ORDER BY id", prefetch=1)], [1, 2])
        same(await ids(), [1, 2])


async def copy(endpoint):
    rows = [(n, f"note {n} é") for n in range(1, 1001)]
    out = bytearray()

    async def take(data):
        out.extend(data)

    async with Connected(endpoint) as connection:
        await connection.execute(f"DELETE FROM {ITEMS}")
        await connection.copy_records_to_table(ITEMS, records=rows)
        await connection.copy_from_query(f"SELECT * FROM {ITEMS} ORDER BY id", output=take)
    same(out.decode(), "".join(f"{id}\t{note}\n" for id, note in rows))


async def notify(endpoint):
    heard = asyncio.get_running_loop().create_future()

    def hear(_connection, _pid, _channel, payload):
        heard.set_result(payload)

    async with Connected(endpoint) as listener, Connected(endpoint) as other:
        await listener.add_listener(CLIENT, hear)
        await other.execute("SELECT pg_notify($1, 'hello')", CLIENT)
        same(await asyncio.wait_for(heard, endpoint.notify_wait_s), "hello")


async def cancel(endpoint):
    async with Connected(endpoint) as connection, Connected(endpoint) as other:
        # A task that is cancelled has the driver send a cancel request.
        sleeping = asyncio.create_task(connection.execute(SLEEP))
        while await other.fetchval(RUNNING) != 1:
            await asyncio.sleep(THINK_S)
        sleeping.cancel()
        try:
            await sleeping
            raise AssertionError("it was not cancelled")
        except asyncio.CancelledError:
            pass
        same(await connection.fetchval("SELECT 1"), 1)
        same(await other.fetchval(RUNNING), 0)


async def types(endpoint):
    row = (
        1,
        -32768,
        9007199254740993,
        Decimal("1234.5600"),
        0.1,
        True,
        "it's é\n",
        b"\x00\x01\\\xff",
        uuid.UUID("01234567-89ab-cdef-0123-456789abcdef"),
        date(2026, 2, 28),
        datetime(2026, 2, 28, 23, 59, 59, 123456, timezone.utc),
        {"a": [1, None, "é"]},
    )
    places = ", ".join(f"${n}" for n in range(1, 13))
    async with Connected(endpoint) as connection:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        await connection.execute(f"DELETE FROM {TYPES}")
        await connection.execute(f"INSERT INTO {TYPES} VALUES ({places})", *row)
        same(tuple(await connection.fetchrow(f"SELECT * FROM {TYPES}")), (*row, None, None))


async def arrays(endpoint):
    values = ([1, None, -9007199254740993], ["a", None, "", "NULL", '{"x", \\y}'])
    async with Connected(endpoint) as connection:
        same(tuple(await connection.fetchrow("SELECT $1::bigint[], $2::text[]", *values)), values)


async def errors(endpoint):
    async with Connected(endpoint) as connection:
        await connection.execute(f"DELETE FROM {ITEMS}")
        insert = lambda: connection.execute(f"INSERT INTO {ITEMS} VALUES ($1, 'note')", 1)
        await insert()
        unique = await failure_of(insert())
        same((unique.sqlstate, unique.constraint_name), ("23505", f"{ITEMS}_pkey"))
        syntax = await failure_of(connection.fetch("SELECT 1 FROM WHERE"))
        same((syntax.sqlstate, syntax.position), ("42601", "15"))
        same(await connection.fetchval("SELECT 1"), 1)


async def pool(endpoint):
    async with asyncpg.create_pool(**parts(endpoint), min_size=4, max_size=4) as connections:

        async def ask(n):
            # Given back, a connection is reset by several statements in one text.
            async with connections.acquire() as connection:
                return await connection.fetchval("SELECT $1::integer", n)

        same(await asyncio.gather(*(ask(n) for n in range(40))), list(range(40)))


class Loop:
    """asyncpg for a caller that waits for each step; nothing else runs in its event loop."""

    def __init__(self, endpoint):
        self.runner = asyncio.Runner()
        self.connection = self.runner.run(asyncpg.connect(**parts(endpoint)))

    def insert(self, n):
        self.runner.run(self.inserted(n))

    async def inserted(self, n):
        await self.connection.execute(f"INSERT INTO {LOOP} (n) VALUES ($1)", n)

    def transaction(self, n):
        self.runner.run(self.committed(n))

    async def committed(self, n):
        async with self.connection.transaction():
            await self.inserted(n)
            same(await self.connection.fetchval(f"SELECT max(n) FROM {LOOP}"), n)

    def total(self):
        return self.runner.run(self.connection.fetchrow(f"SELECT count(*), max(n) FROM {LOOP}"))

    def close(self):
        self.runner.run(self.connection.close())
        self.runner.close()


ALL = (connect, tls, prepared, transactions, copy, notify, cancel, types, arrays, errors, pool)

if __name__ == "__main__":
    blocking = lambda feature: lambda endpoint: asyncio.run(feature(endpoint))
    run({feature.__name__: blocking(feature) for feature in ALL}, Loop)

"""One task: the features of psycopg 3."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone
from decimal import Decimal
from queue import Queue

import psycopg
from psycopg.types.json import Jsonb

from report import CLIENT, ITEMS, LOOP, OTHER_CA, RUNNING, SLEEP, TRUSTED_CA, TYPES, run, same, until_running


def connect(endpoint, password=None, autocommit=True, **tls):
    return psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=password or endpoint.password,
        dbname=endpoint.database,
        autocommit=autocommit,
        **tls,
    )


def failure_of(work):
    try:
        work()
    except psycopg.Error as error:
        return error
    raise AssertionError("it did not fail")


def connect_feature(endpoint):
    with connect(endpoint) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
        same(row, (endpoint.user, endpoint.database))
    # libpq gives no SQLSTATE for a login that failed.
    wrong = failure_of(lambda: connect(endpoint, password="wrong"))
    same("password authentication failed" in str(wrong), True)


def tls(endpoint):
    verified = lambda authority: connect(endpoint, sslmode="verify-full", sslrootcert=authority)
    with verified(TRUSTED_CA) as connection:
        same(connection.pgconn.ssl_in_use, True)
        same(connection.execute("SELECT 1").fetchone(), (1,))
    same("certificate verify failed" in str(failure_of(lambda: verified(OTHER_CA))), True)


def prepared(endpoint):
    with connect(endpoint) as connection:
        # Fewer than there are texts: statements are closed on the way.
        connection.prepare_threshold, connection.prepared_max = 2, 3
        for n in range(20):
            for factor in range(5):
                row = connection.execute(f"SELECT %s::integer * {factor}", (n,)).fetchone()
                same(row, (n * factor,))


def transactions(endpoint):
    with connect(endpoint, autocommit=False) as connection:
        insert = lambda id: connection.execute(f"INSERT INTO {ITEMS} VALUES (%s, 'note')", (id,))
        ids = lambda: [id for (id,) in connection.execute(f"SELECT id FROM {ITEMS} ORDER BY id")]
        connection.execute(f"DELETE FROM {ITEMS}")
        connection.commit()
        insert(1)
        connection.rollback()
        same(ids(), [])
        insert(1)

        def again():
            with connection.transaction():
                insert(1)

        same(failure_of(again).sqlstate, "23505")
        insert(2)
        connection.commit()
        same(ids(), [1, 2])


def copy(endpoint):
    with connect(endpoint) as connection, connection.cursor() as cursor:
        rows = [(n, f"note {n} é") for n in range(1, 1001)]
        cursor.execute(f"DELETE FROM {ITEMS}")
        with cursor.copy(f"COPY {ITEMS} FROM STDIN (FORMAT BINARY)") as into:
            into.set_types(["int4", "text"])
            for row in rows:
                into.write_row(row)
        with cursor.copy(f"COPY (SELECT * FROM {ITEMS} ORDER BY id) TO STDOUT") as out:
            out.set_types(["int4", "text"])
            same(list(out.rows()), rows)


def notify(endpoint):
    with connect(endpoint) as listener, connect(endpoint) as other:
        listener.execute(f"LISTEN {CLIENT}")
        other.execute("SELECT pg_notify(%s, 'hello')", (CLIENT,))
        heard = [each.payload for each in listener.notifies(timeout=endpoint.notify_wait_s, stop_after=1)]
        same(heard, ["hello"])


def cancel(endpoint):
    with connect(endpoint) as connection, connect(endpoint) as other:
        with ThreadPoolExecutor() as threads:
            failure = threads.submit(lambda: failure_of(lambda: connection.execute(SLEEP)))
            until_running(lambda: other.execute(RUNNING).fetchone()[0])
            connection.cancel_safe()
            same(failure.result().sqlstate, "57014")
        same(connection.execute("SELECT 1").fetchone(), (1,))


def types(endpoint):
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
    )
    document = {"a": [1, None, "é"]}
    places = ", ".join(["%s"] * 12)
    with connect(endpoint) as connection:
        connection.execute(f"DELETE FROM {TYPES}")
        connection.execute(f"INSERT INTO {TYPES} VALUES ({places})", (*row, Jsonb(document)))
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            same(cursor.execute(f"SELECT * FROM {TYPES}").fetchone(), (*row, document, None, None))


def arrays(endpoint):
    values = ([1, None, -9007199254740993], ["a", None, "", "NULL", '{"x", \\y}'])
    with connect(endpoint) as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            same(cursor.execute("SELECT %s::bigint[], %s::text[]", values).fetchone(), values)


def errors(endpoint):
    with connect(endpoint) as connection:
        connection.execute(f"DELETE FROM {ITEMS}")
        insert = lambda: connection.execute(f"INSERT INTO {ITEMS} VALUES (%s, 'note')", (1,))
        insert()
        unique = failure_of(insert)
        same((unique.sqlstate, unique.diag.constraint_name), ("23505", f"{ITEMS}_pkey"))
        syntax = failure_of(lambda: connection.execute("SELECT 1 FROM WHERE"))
        same((syntax.sqlstate, syntax.diag.statement_position), ("42601", "15"))

        def pipelined():
            with connection.pipeline():
                connection.execute("SELECT 1")
                connection.execute("SELECT 1 / 0")
                # Not run, since it stands behind an error. Any call from here on may be the one that hears of that.
                connection.execute(f"INSERT INTO {ITEMS} VALUES (2, 'behind')")

        same(failure_of(pipelined).sqlstate, "22012")
        same(connection.execute(f"SELECT count(*) FROM {ITEMS}").fetchone(), (1,))


def pool(endpoint):
    from psycopg_pool import ConnectionPool

    parts = {"host": endpoint.host, "port": endpoint.port, "user": endpoint.user, "password": endpoint.password}
    with ConnectionPool(kwargs={**parts, "dbname": endpoint.database}, min_size=4, max_size=4) as connections:
        answers = Queue()

        def ask(n):
            with connections.connection() as connection:
                answers.put(connection.execute("SELECT %s::integer", (n,)).fetchone()[0])

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same(sorted(answers.queue), list(range(40)))


class Loop:
    def __init__(self, endpoint):
        self.connection = connect(endpoint)
        self.connection.prepare_threshold = 0

    def insert(self, n):
        self.connection.execute(f"INSERT INTO {LOOP} (n) VALUES (%s)", (n,))

    def transaction(self, n):
        with self.connection.transaction():
            self.insert(n)
            same(self.connection.execute(f"SELECT max(n) FROM {LOOP}").fetchone(), (n,))

    def total(self):
        return self.connection.execute(f"SELECT count(*), max(n) FROM {LOOP}").fetchone()

    def close(self):
        self.connection.close()


FEATURES = {
    "connect": connect_feature,
    "tls": tls,
    "prepared": prepared,
    "transactions": transactions,
    "copy": copy,
    "notify": notify,
    "cancel": cancel,
    "types": types,
    "arrays": arrays,
    "errors": errors,
    "pool": pool,
}

if __name__ == "__main__":
    run(FEATURES, Loop)

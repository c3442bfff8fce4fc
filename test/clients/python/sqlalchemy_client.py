"""One task: the features of SQLAlchemy over psycopg 3, by its ORM where that has them. It has no COPY, LISTEN or cancel of its own."""

import threading
import uuid
from datetime import date, datetime, timezone
from decimal import Decimal
from queue import Queue

from sqlalchemy import BigInteger, LargeBinary, Text, URL, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from report import ITEMS, LOOP, NONE, OTHER_CA, TRUSTED_CA, TYPES, run, same


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = ITEMS
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


class Number(Base):
    __tablename__ = LOOP
    n: Mapped[int] = mapped_column(primary_key=True)


class Values(Base):
    __tablename__ = TYPES
    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int | None]
    big: Mapped[int | None] = mapped_column(BigInteger)
    exact: Mapped[Decimal | None]
    double: Mapped[float | None]
    truth: Mapped[bool | None]
    words: Mapped[str | None]
    raw: Mapped[bytes | None] = mapped_column("bytes", LargeBinary)
    code: Mapped[uuid.UUID | None]
    day: Mapped[date | None]
    moment: Mapped[datetime | None]
    document: Mapped[dict | None] = mapped_column(JSONB)
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    texts: Mapped[list[str] | None] = mapped_column(ARRAY(Text))


VALUES = {
    "small": -32768,
    "big": 9007199254740993,
    "exact": Decimal("1234.5600"),
    "double": 0.1,
    "truth": True,
    "words": "it's é\n",
    "raw": b"\x00\x01\\\xff",
    "code": uuid.UUID("01234567-89ab-cdef-0123-456789abcdef"),
    "day": date(2026, 2, 28),
    "moment": datetime(2026, 2, 28, 23, 59, 59, 123456, timezone.utc),
    "document": {"a": [1, None, "é"]},
}
ARRAYS = {"numbers": [1, None, -9007199254740993], "texts": ["a", None, "", "NULL", '{"x", \\y}']}


def engine_of(endpoint, password=None, **options):
    url = URL.create(
        "postgresql+psycopg",
        endpoint.user,
        password or endpoint.password,
        endpoint.host,
        endpoint.port,
        endpoint.database,
    )
    return create_engine(url, **options)


def failure_of(work):
    try:
        work()
    except DBAPIError as error:
        return error.orig
    raise AssertionError("it did not fail")


def connect(endpoint):
    with engine_of(endpoint).connect() as connection:
        row = connection.execute(text("SELECT current_user, current_database()")).one()
        same(tuple(row), (endpoint.user, endpoint.database))
    wrong = failure_of(lambda: engine_of(endpoint, password="wrong").connect())
    same("password authentication failed" in str(wrong), True)


def tls(endpoint):
    def ask(authority):
        engine = engine_of(endpoint, connect_args={"sslmode": "verify-full", "sslrootcert": authority})
        try:
            with engine.connect() as connection:
                return connection.execute(text("SELECT 1")).scalar_one()
        finally:
            engine.dispose()

    same(ask(TRUSTED_CA), 1)
    same("certificate verify failed" in str(failure_of(lambda: ask(OTHER_CA))), True)


def prepared(endpoint):
    engine = engine_of(endpoint, connect_args={"prepare_threshold": 2})
    with Session(engine) as session:
        session.execute(text(f"DELETE FROM {ITEMS}"))
        session.add_all([Item(id=n, note=f"note {n}") for n in range(20)])
        session.commit()
        for n in range(20):
            same(session.scalars(select(Item.note).where(Item.id == n)).one(), f"note {n}")
            session.commit()
    engine.dispose()


def transactions(endpoint):
    engine = engine_of(endpoint)
    with Session(engine) as session:
        ids = lambda: list(session.scalars(select(Item.id).order_by(Item.id)))
        session.execute(text(f"DELETE FROM {ITEMS}"))
        session.commit()
        session.add(Item(id=1, note="note"))
        session.flush()
        session.rollback()
        same(ids(), [])
        insert = lambda id: session.execute(text(f"INSERT INTO {ITEMS} VALUES (:id, 'note')"), {"id": id})
        insert(1)

        def again():
            with session.begin_nested():
                insert(1)

        same(failure_of(again).sqlstate, "23505")
        insert(2)
        session.commit()
        same(ids(), [1, 2])
    engine.dispose()


def types(endpoint):
    round_trip(endpoint, VALUES)


def arrays(endpoint):
    round_trip(endpoint, ARRAYS)


def round_trip(endpoint, values):
    engine = engine_of(endpoint)
    with Session(engine) as session:
        session.execute(text(f"DELETE FROM {TYPES}"))
        session.add(Values(id=1, **values))
        session.commit()
    with Session(engine) as session:
        row = session.scalars(select(Values)).one()
        same({name: getattr(row, name) for name in values}, values)
    engine.dispose()


def errors(endpoint):
    engine = engine_of(endpoint)
    with engine.connect() as connection:
        connection.execute(text(f"DELETE FROM {ITEMS}"))
        connection.execute(text(f"INSERT INTO {ITEMS} VALUES (1, 'note')"))
        connection.commit()
        unique = failure_of(lambda: connection.execute(text(f"INSERT INTO {ITEMS} VALUES (1, 'note')")))
        same((unique.sqlstate, unique.diag.constraint_name), ("23505", f"{ITEMS}_pkey"))
        connection.rollback()
        syntax = failure_of(lambda: connection.execute(text("SELECT 1 FROM WHERE")))
        same((syntax.sqlstate, syntax.diag.statement_position), ("42601", "15"))
        connection.rollback()
        same(connection.execute(text("SELECT 1")).scalar_one(), 1)
    engine.dispose()


def pool(endpoint):
    engine = engine_of(endpoint, pool_size=4, max_overflow=0, pool_pre_ping=True)
    answers = Queue()

    def ask(n):
        with engine.connect() as connection:
            answers.put(connection.execute(text("SELECT CAST(:n AS integer)"), {"n": n}).scalar_one())

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(sorted(answers.queue), list(range(40)))
    engine.dispose()


class Loop:
    def __init__(self, endpoint):
        self.engine = engine_of(endpoint, connect_args={"prepare_threshold": 0})
        self.autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def insert(self, n):
        with self.autocommit.connect() as connection:
            connection.execute(text(f"INSERT INTO {LOOP} (n) VALUES (:n)"), {"n": n})

    def transaction(self, n):
        with Session(self.engine) as session:
            session.add(Number(n=n))
            session.flush()
            same(session.scalar(select(func.max(Number.n))), n)
            session.commit()

    def total(self):
        with Session(self.engine) as session:
            return session.execute(select(func.count(), func.max(Number.n)).select_from(Number)).one()

    def close(self):
        self.engine.dispose()


FEATURES = {
    "connect": connect,
    "tls": tls,
    "prepared": prepared,
    "transactions": transactions,
    "copy": NONE,
    "notify": NONE,
    "cancel": NONE,
    "types": types,
    "arrays": arrays,
    "errors": errors,
    "pool": pool,
}

if __name__ == "__main__":
    run(FEATURES, Loop)

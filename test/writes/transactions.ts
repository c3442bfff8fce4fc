/** One task: transactions of one key: statements of every form, savepoints, errors, and texts of several statements; and some over several shards. */
import type { Maker } from './maker.js';
import { cast, joined, sql, type Sql, type Value } from './sql.js';
import { integer } from './values.js';
import { one, type Make, type Statement, type Step, type Unit } from './unit.js';

const BEGINS = ['BEGIN', 'START TRANSACTION', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'begin; -- now'] as const;

export const TRANSACTIONS: Readonly<Record<string, Make>> = {
  'transaction of one shard': (maker) => {
    const key = maker.tenant();
    const steps = Array.from({ length: 1 + maker.below(4) }, () => statement(inside(maker, key)));
    return [begin(maker), ...steps, end(maker)];
  },
  savepoints: (maker) => {
    const key = maker.tenant();
    const steps = Array.from({ length: 1 + maker.below(2) }, () => savepoint(maker, () => inside(maker, key)));
    return [begin(maker), statement(inside(maker, key)), ...steps.flat(), statement(inside(maker, key)), end(maker)];
  },
  'errors in a transaction': (maker) => {
    const key = maker.tenant();
    const wrong = statement(mistake(maker, key));
    const work = statement(inside(maker, key));
    return maker.pick<Unit>(
      [begin(maker), work, wrong, statement(inside(maker, key)), end(maker)],
      [begin(maker), wrong, end(maker)],
      [begin(maker), statement(sql`SAVEPOINT s`), wrong, statement(sql`ROLLBACK TO s`), work, end(maker)],
      [
        begin(maker),
        work,
        statement(sql`SAVEPOINT s`),
        statement(inside(maker, key)),
        wrong,
        statement(sql`ROLLBACK TO SAVEPOINT s`),
        end(maker),
      ],
      [
        begin(maker),
        work,
        statement(sql`INSERT INTO slots VALUES (${key}, 6001, 2), (${key}, 6002, 2)`),
        statement(sql`COMMIT`),
      ],
    );
  },
  'transaction over several shards': (maker) => {
    const steps = Array.from({ length: 2 + maker.below(4) }, () => statement(anywhere(maker)));
    return [committed(maker), ...steps, end(maker)];
  },
  'savepoints over several shards': (maker) => {
    const steps = Array.from({ length: 1 + maker.below(2) }, () => savepoint(maker, () => anywhere(maker)));
    return [committed(maker), ...steps.flat(), statement(anywhere(maker)), end(maker)];
  },
  'errors over several shards': (maker) => {
    const wrong = statement(mistake(maker, maker.tenant()));
    const some = (): Step => statement(anywhere(maker));
    return maker.pick<Unit>(
      [committed(maker), some(), some(), wrong, some(), end(maker)],
      [
        committed(maker),
        some(),
        statement(sql`SAVEPOINT s`),
        some(),
        wrong,
        statement(sql`ROLLBACK TO s`),
        some(),
        end(maker),
      ],
      [committed(maker), some(), wrong, some(), statement(sql`ROLLBACK`)],
    );
  },
  'several statements in one text': (maker) => {
    const key = maker.tenant();
    const some = Array.from({ length: 2 + maker.below(2) }, () => inside(maker, key));
    const failing = maker.happens(8) ? [mistake(maker, key)] : [];
    const whole = joined([...some, ...failing], '; ');
    return one(
      maker.happens(3) ? sql`BEGIN; ${whole}; ${maker.pick('COMMIT', 'ROLLBACK', 'SAVEPOINT a; COMMIT')}` : whole,
      { form: 'simple' },
    );
  },
};

function statement(text: Sql): Statement {
  return { kind: 'statement', sql: text };
}

function begin(maker: Maker): Step {
  return statement(sql`${maker.pick(...BEGINS)}`);
}

function end(maker: Maker): Step {
  return statement(sql`${maker.pick('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK', 'END')}`);
}

/** At the level at which a transaction may use several shards. */
function committed(maker: Maker): Step {
  return statement(
    sql`${maker.pick('BEGIN', 'START TRANSACTION', 'BEGIN ISOLATION LEVEL READ COMMITTED', 'begin; -- now')}`,
  );
}

function savepoint(maker: Maker, work: () => Sql): readonly Step[] {
  const name = maker.pick('a', 'b', '"S p"');
  const after = maker.pick(`ROLLBACK TO ${name}`, `ROLLBACK TO ${name}`, `RELEASE ${name}`, 'SAVEPOINT c');
  const steps = Array.from({ length: 1 + maker.below(2) }, () => statement(work()));
  return [statement(sql`SAVEPOINT ${name}`), ...steps, statement(sql`${after}`)];
}

/** A statement of any key, or of all shards. */
function anywhere(maker: Maker): Sql {
  return maker.pick<() => Sql>(
    () => inside(maker, maker.tenant()),
    () => inside(maker, maker.tenant()),
    () => inside(maker, maker.tenant()),
    () =>
      sql`INSERT INTO loose VALUES (${maker.tenant()}, ${maker.number(30)}, 'a'), (${maker.tenant()}, ${maker.number(30)}, 'b')`,
    () => sql`UPDATE loose SET n = n + 1 WHERE n < ${maker.number(30)}`,
    () => sql`DELETE FROM entries WHERE line = ${maker.number(9)}`,
    () => sql`UPDATE codes SET label = ${maker.words()} WHERE code < ${maker.number(9)}`,
  )();
}

/** A statement of one key, with the rows in one order where there are several. */
function inside(maker: Maker, key: Value): Sql {
  const same = (): Sql => maker.is('tenant_id', key);
  return maker.pick<Sql>(
    sql`INSERT INTO accounts (tenant_id, id, name) VALUES (${key}, ${maker.id()}, ${maker.words()}) ON CONFLICT DO NOTHING RETURNING *`,
    sql`INSERT INTO accounts (tenant_id, id) VALUES (${key}, ${maker.id()}) ON CONFLICT (tenant_id, id) DO UPDATE SET balance = accounts.balance + 1 RETURNING balance`,
    sql`INSERT INTO loose VALUES (${key}, ${maker.number(30)}, ${maker.words()})`,
    sql`INSERT INTO entries SELECT tenant_id, id, ${cast(maker.number(9))}, 1 FROM accounts WHERE ${same()} ON CONFLICT DO NOTHING`,
    sql`UPDATE accounts SET balance = balance + 1 WHERE ${same()} AND id = ${maker.id()} RETURNING balance`,
    sql`UPDATE loose SET n = n + 1 WHERE ${same()}`,
    sql`DELETE FROM loose WHERE ${same()} AND n > ${maker.number(30)}`,
    sql`DELETE FROM entries WHERE ${same()} AND line = ${maker.number(9)}`,
    sql`SELECT count(*), sum(balance) FROM accounts WHERE ${same()}`,
    sql`SELECT id, name FROM accounts WHERE ${same()} ORDER BY id FOR UPDATE`,
    sql`SELECT n, v FROM loose WHERE ${same()} ORDER BY n, v COLLATE "C"`,
    sql`SELECT code FROM codes ORDER BY code`,
  );
}

function mistake(maker: Maker, key: Value): Sql {
  return maker.pick<Sql>(
    sql`INSERT INTO accounts (tenant_id, id) VALUES (${key}, 6000), (${key}, 6000)`,
    sql`INSERT INTO accounts (tenant_id, id, balance) VALUES (${key}, 6000, -1001)`,
    sql`INSERT INTO accounts (tenant_id, id, name) VALUES (${key}, 6000, NULL)`,
    sql`UPDATE loose SET n = 1 / ${cast(integer('int4', 0))} WHERE tenant_id = ${key} AND 1 % ${cast(integer('int4', 0))} = 0`,
    sql`INSERT INTO entries VALUES (${key}, -7, 1, 1)`,
  );
}

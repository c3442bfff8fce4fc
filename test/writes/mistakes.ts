/**
 * One task: statements that fail on purpose, on one shard of several or on all: nothing of them may be left anywhere. Each has one error only: of two
 * on different shards the one of the lower shard is told, where one server tells that of the row before.
 */
import { binaryOf } from '../proxy/copies.js';
import { copy } from './copies.js';
import type { Maker } from './maker.js';
import { cast, sql, type Sql } from './sql.js';
import { integer, text, uuid } from './values.js';
import { one, type Make, type Unit } from './unit.js';

/** Of each of these every statement fails. */
export const MISTAKES: Readonly<Record<string, Make>> = {
  'unique violation': (maker) => {
    const [first = maker.tenant(), ...others] = maker.tenants(4);
    const more = others.map((key) => sql`(${key}, ${maker.id()}), `);
    const id = integer('int4', 5000 + maker.below(9));
    const rows: Sql = { parts: [sql`(${first}, ${id}), `, ...more, sql`(${first}, ${id})`] };
    const docs = sql`(${maker.doc(true)}), (${maker.doc(true)}), ('00000000-0000-0000-0000-000000000000'), (${maker.doc(true)}), ('00000000000000000000000000000000')`;
    return one(
      maker.pick<Sql>(
        sql`INSERT INTO accounts (tenant_id, id) VALUES ${rows}`,
        sql`INSERT INTO edges (tenant_id, id) VALUES ${rows} RETURNING *`,
        sql`INSERT INTO slots SELECT ${cast(first)}, g, 1 FROM generate_series(5000, 5001) g`,
        sql`INSERT INTO slots VALUES (${first}, 5001, 2), (3, 5002, 3), (${first}, 5003, 2), (4, 5004, 4)`,
        sql`INSERT INTO documents (doc) VALUES ${docs}`,
        sql`INSERT INTO codes VALUES (77, 'once', 1), (77, 'twice', 1)`,
      ),
    );
  },
  'check violation': (maker) =>
    one(
      maker.pick<Sql>(
        sql`INSERT INTO people VALUES (${maker.email()}, 'x', -1)`,
        sql`INSERT INTO people (email, age) VALUES (${text('p-one', maker.random, 'varchar')}, 1), ('p-two', 2), ('p-three', ${integer('int4', -3)}), ('p-four', 4)`,
        sql`INSERT INTO accounts (tenant_id, id, balance) VALUES (1, 5000, 1), (2, 5000, 1), (${maker.tenant()}, 5001, -1000.5), (3, 5000, 1)`,
        sql`UPDATE codes SET price = ${integer('int4', -1)}`,
        sql`INSERT INTO codes VALUES (5000, 'five', 1), (5001, 'less', ${integer('int4', -2)})`,
      ),
    ),
  'NULL where none may be': (maker) =>
    one(
      maker.pick<Sql>(
        sql`INSERT INTO documents (doc, size) VALUES (${uuid('d'.repeat(32))}, 1), (${maker.doc(true)}, NULL), (${uuid('e'.repeat(32))}, 3)`,
        sql`INSERT INTO accounts (tenant_id, id) VALUES (1, 5002), (NULL, 5002), (2, 5002), (3, 5002)`,
        sql`INSERT INTO history (day, tenant_id) VALUES (5003, ${maker.tenant()}), (NULL, ${maker.tenant()})`,
        sql`INSERT INTO people (name) VALUES (${maker.words()})`,
        sql`UPDATE codes SET label = NULL`,
        sql`INSERT INTO codes (code) VALUES (${maker.number(9)})`,
      ),
    ),
  'division by zero': (maker) =>
    one(
      maker.pick<Sql>(
        sql`INSERT INTO loose (tenant_id, n) VALUES (1, 1), (2, 1 / ${cast(integer('int4', 0))}), (3, 1), (${maker.tenant()}, 3)`,
        sql`UPDATE accounts SET balance = 1 / (tenant_id - tenant_id) WHERE tenant_id = (${maker.tenant()}) OR 1 / ${cast(integer('int4', 0))} = 1`,
        sql`DELETE FROM loose WHERE 1 % ${cast(integer('int4', 0))} = 0`,
        sql`UPDATE codes SET price = price / ${cast(integer('int4', 0))}`,
        sql`INSERT INTO history SELECT ${cast(maker.tenant())}, code / 0, label FROM codes`,
      ),
    ),
  'other errors of data': (maker) =>
    one(
      maker.pick<Sql>(
        sql`INSERT INTO entries VALUES (${maker.tenant()}, -7, 1, 1)`,
        sql`INSERT INTO entries VALUES (1, -7, 1, 1), (2, -7, 1, 1), (3, -7, 1, 1)`,
        sql`INSERT INTO edges (tenant_id, id, i2) VALUES (${maker.tenant()}, 5004, 32768), (${maker.tenant()}, 5005, 1)`,
        sql`INSERT INTO edges (tenant_id, id, v) VALUES (1, 5004, 'thirteen char'), (2, 5004, 'short'), (3, 5004, 'short')`,
        sql`INSERT INTO history VALUES (1, 5004, 'a'), (2, -1, 'no partition'), (3, 5004, 'b'), (${maker.tenant()}, 5005, 'c')`,
        sql`INSERT INTO accounts (tenant_id, id) VALUES (2, 5006), (1, 5006), (2, 5006) ON CONFLICT (tenant_id, id) DO UPDATE SET balance = 1`,
        sql`INSERT INTO edges (tenant_id, id, j) VALUES (1, 5004, '{'), (2, 5004, '{}'), (3, 5004, '{}')`,
        sql`INSERT INTO edges (tenant_id, id, twice) VALUES (1, 5004, 1), (2, 5004, 2), (3, 5004, 3)`,
        sql`INSERT INTO loose (n, tenant_id) VALUES (1)`,
        sql`INSERT INTO codes SELECT 5000 + rate, repeat('x', -1), sqrt(-1) FROM rates UNION ALL SELECT 1, 'y', sqrt(-1)`,
        sql`DELETE FROM codes WHERE label::int / 1 > 0 OR sqrt(-price - 1) > 0`,
      ),
    ),
  'COPY that fails': failedCopy,
};

function failedCopy(maker: Maker): Unit {
  const key = (): string => maker.tenant().text ?? '';
  const good = Array.from({ length: maker.below(6) }, (_, at) => `${key()}\t${(6000 + at).toString()}\tgood\n`).join(
    '',
  );
  return maker.pick<Unit>(
    copy(
      'COPY accounts (tenant_id, id, name) FROM STDIN',
      `${good}${key()}\tword\tbad\n${good.replaceAll('\t6', '\t7')}`,
    ),
    copy('COPY accounts (tenant_id, id, name) FROM STDIN', `${good}${key()}\t7000\t\\N\n`),
    copy('COPY accounts (tenant_id, id, name) FROM STDIN', `1\t7000\tx\n${good}2\t7000\tx\n1\t7000\tx\n`),
    copy('COPY accounts (tenant_id, id, balance) FROM STDIN (FORMAT csv)', `1,7000,1\n2,7000,-1001\n3,7000,5\n`),
    copy('COPY accounts (tenant_id, id, name) FROM STDIN', `${good}\\N\t7000\tx\n`),
    copy('COPY history (tenant_id, day, body) FROM STDIN', `${good}${key()}\t-1\tx\n`),
    copy('COPY loose (tenant_id, n) FROM STDIN (FORMAT binary)', binaryOf([[null, Buffer.from([1])]])),
    copy('COPY codes FROM STDIN (FORMAT csv)', '7000,a,1\n7001,b,-1\n'),
    copy('COPY codes FROM STDIN', null),
    copy('COPY loose FROM STDIN', null),
  );
}

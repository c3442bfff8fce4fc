/**
 * One task: UPDATE that changes the sharding column, so that rows go to other shards: to a constant, a parameter, what only the server computes; with a
 * key, with several, without one; and errors among them. Two rows never become one key's in an order that matters: one server checks row by row.
 */
import type { Maker } from './maker.js';
import { cast, sql, type Sql } from './sql.js';
import { one, type Make, type Unit } from './unit.js';

export const MOVES: Readonly<Record<string, Make>> = {
  'a key that is changed': (maker) => one(changed(maker)),
  'keys that are changed without a key': (maker) => one(unbound(maker)),
  'a key that is changed in a transaction': inTransaction,
};

/** Of rows that one key binds. */
function changed(maker: Maker): Sql {
  const [from, to] = [maker.tenant(), maker.tenant()];
  const same = maker.is('tenant_id', from);
  const returning = maker.returning('tenant_id', '*, tenant_id AS again', 'old.tenant_id, new.*');
  return maker.pick<Sql>(
    sql`UPDATE loose SET tenant_id = ${to}, n = n + 1 WHERE ${same}${returning}`,
    sql`UPDATE loose l SET tenant_id = ${to}, v = c.label FROM codes c WHERE ${maker.is('l.tenant_id', from)} AND c.code = l.n RETURNING l.*`,
    sql`UPDATE edges SET tenant_id = ${to} WHERE ${same} AND id = ${maker.id()}${returning}`,
    sql`UPDATE edges SET (tenant_id, t) = (${cast(to)}, id || t) WHERE ${same} AND id > ${maker.id()} RETURNING *`,
    sql`UPDATE history SET tenant_id = ${to}, day = 39 - day WHERE ${same} AND day = ${maker.number(40)}${returning}`,
    sql`UPDATE slots SET tenant_id = ${cast(to)} WHERE ${same} AND holder < ${maker.id()}${returning}`,
    sql`UPDATE smalls SET tenant_id = ${maker.small()}, n = DEFAULT WHERE ${maker.is('tenant_id', maker.small())}${returning}`,
    sql`UPDATE people SET email = ${maker.email()} WHERE ${maker.is('email', maker.email())}${maker.returning('email', '*')}`,
    sql`UPDATE documents SET doc = ${maker.doc(true)}, title = title || '.' WHERE ${maker.is('doc', maker.doc())}${maker.returning('doc', '*')}`,
  );
}

/** Of rows that may be anywhere. */
function unbound(maker: Maker): Sql {
  const to = maker.tenant();
  const returning = maker.returning('tenant_id', '*');
  return maker.pick<Sql>(
    sql`UPDATE loose SET tenant_id = ${to} WHERE n = ${maker.number(30)}${returning}`,
    sql`UPDATE loose SET tenant_id = n % 9, n = n + 1 WHERE n > ${maker.number(30)}${returning}`,
    sql`UPDATE loose SET tenant_id = CASE WHEN n < 9 THEN ${cast(to)} END WHERE tenant_id IN (${maker.tenant()}, ${maker.tenant()})${returning}`,
    sql`UPDATE loose SET tenant_id = (SELECT max(code) FROM codes) WHERE tenant_id IS NULL`,
    sql`UPDATE edges SET tenant_id = ${to} WHERE id = ${maker.id()} AND tenant_id IN (${maker.tenant()}, ${maker.tenant()})${returning}`,
    sql`UPDATE history h SET tenant_id = a.id FROM accounts a WHERE a.tenant_id = h.tenant_id AND a.id = h.day AND h.day = ${maker.number(12)} AND a.tenant_id > ${maker.tenant()} RETURNING h.*`,
    sql`UPDATE people SET email = email || '!' WHERE age = ${maker.number(99)} RETURNING *`,
    sql`UPDATE documents SET doc = gen_random_uuid() WHERE size < 0`,
    sql`UPDATE smalls SET tenant_id = 7 - tenant_id WHERE n = ${maker.number(9)} AND tenant_id < 4 AND code = 'c1'`,
  );
}

function inTransaction(maker: Maker): Unit {
  const step = (text: Sql): Unit => one(text);
  const [from, to] = [maker.tenant(), maker.tenant()];
  const back = maker.pick<Unit>([], [...step(sql`SAVEPOINT s`), ...step(unbound(maker)), ...step(sql`ROLLBACK TO s`)]);
  return [
    ...step(sql`BEGIN`),
    ...step(sql`INSERT INTO loose VALUES (${from}, 77, 'moves')`),
    ...back,
    ...step(sql`UPDATE loose SET tenant_id = ${to} WHERE ${maker.is('tenant_id', from)} AND n = 77 RETURNING v`),
    ...step(sql`UPDATE loose SET n = n + 1 WHERE ${maker.is('tenant_id', to)}`),
    ...step(sql`SELECT n, v FROM loose WHERE ${maker.is('tenant_id', to)} ORDER BY n, v COLLATE "C"`),
    ...step(maker.pick<Sql>(sql`COMMIT`, sql`COMMIT`, sql`ROLLBACK`)),
  ];
}

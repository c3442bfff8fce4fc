/** One task: UPDATE, DELETE, MERGE, TRUNCATE and WITH that writes: with a key, with several, without one, joined with what lies beside. */
import { anyOf, absent } from './inserts.js';
import type { Maker } from './maker.js';
import { cast, joined, sql, type Sql } from './sql.js';
import { integers, nothing, texts } from './values.js';
import { one, type Make } from './unit.js';

export const CHANGES: Readonly<Record<string, Make>> = {
  'UPDATE with a key': (maker) =>
    one(sql`${update(maker)} WHERE ${keyed(maker)}${maker.returning('tenant_id', 'old.*, new.*')}`),
  'UPDATE with several keys': (maker) =>
    one(sql`${update(maker)} WHERE ${severalKeys(maker)}${maker.returning('tenant_id')}`),
  'UPDATE without a key': (maker) =>
    one(sql`${update(maker)}${maybeWhere(maker)}${maker.returning('tenant_id', 'new.*')}`),
  'UPDATE joined': (maker) => one(updateJoined(maker)),
  'DELETE with a key': (maker) =>
    one(sql`DELETE FROM ${maker.pick(...BY_TENANT)} WHERE ${keyed(maker)}${maker.returning('tenant_id')}`),
  'DELETE with several keys': (maker) =>
    one(
      sql`DELETE FROM ${maker.pick(...BY_TENANT)} WHERE ${severalKeys(maker)}${maker.pick('', ' AND random() >= 0')}${maker.returning('tenant_id')}`,
    ),
  'DELETE without a key': (maker) => one(sql`${deletion(maker)}${maker.pick('', ' RETURNING *')}`),
  'DELETE joined': (maker) => one(deleteJoined(maker)),
  'UPDATE and DELETE by text and uuid': (maker) => one(byOtherKeys(maker)),
  'rows without a key': (maker) => one(nullKeys(maker)),
  'WITH that writes': (maker) => one(commonTable(maker)),
  MERGE: (maker) => one(merge(maker)),
  'UPDATE and DELETE of what every shard has': (maker) => one(everyShard(maker)),
  TRUNCATE: (maker) =>
    one(
      sql`${maker.pick('TRUNCATE loose', 'TRUNCATE TABLE accounts, entries', 'TRUNCATE accounts CASCADE', 'TRUNCATE edges, smalls', 'TRUNCATE history', 'TRUNCATE slots', 'TRUNCATE people', 'TRUNCATE rates')}`,
    ),
};

const BY_TENANT = ['accounts', 'entries', 'loose', 'edges', 'history', 'slots'] as const;

/** UPDATE of a table with the column tenant_id. */
function update(maker: Maker): Sql {
  switch (maker.below(11)) {
    case 0:
      return sql`UPDATE accounts SET balance = balance + ${maker.amount()}`;
    case 1:
      return sql`UPDATE accounts SET name = ${maker.words()}, mood = ${maker.mood()}`;
    case 2:
      return sql`UPDATE accounts SET tenant_id = tenant_id, balance = DEFAULT`;
    case 3:
      return sql`UPDATE loose SET n = n + ${maker.number(9)}, v = left(v || ${maker.words()}, 25)`;
    case 4:
    case 5: {
      const column = Object.keys(maker.edges())[0] ?? 't';
      return sql`UPDATE edges SET ${column} = ${maker.edge(column)}`;
    }
    case 6:
      return sql`UPDATE edges SET (i4, i8) = (${maker.number(9)}, id), t = (SELECT 'of ' || max(code)::text FROM codes)`;
    case 7:
      return sql`UPDATE history SET body = left(day::text || body, 30)`;
    case 8:
      return sql`UPDATE slots SET slot = slot + ${maker.number(4)}`;
    case 9:
      return sql`UPDATE entries SET amount = amount * ${maker.number(3)}, note = NULL`;
    default:
      return sql`UPDATE entries SET note = CASE WHEN amount > ${maker.number(9)} THEN ${maker.words()} ELSE note END`;
  }
}

function keyed(maker: Maker): Sql {
  const key = maker.tenant();
  return sql`${maker.is('tenant_id', key)}${maker.pick<Sql>(sql``, sql``, sql` AND ${maker.number(99)} > 10`, sql` AND tenant_id IS NOT NULL`)}`;
}

function severalKeys(maker: Maker): Sql {
  if (maker.happens(2)) return anyOf(maker, 'tenant_id');
  const keys = maker.tenants(5).map(({ text }) => BigInt(text ?? '0'));
  return sql`tenant_id = ANY (${cast(integers('_int8', keys))})`;
}

function maybeWhere(maker: Maker): Sql {
  return maker.pick<Sql>(
    sql``,
    sql` WHERE tenant_id > ${maker.tenant()}`,
    sql` WHERE tenant_id % 3 <> ${maker.tenant()}`,
    sql` WHERE tenant_id <> ${maker.tenant()}`,
  );
}

function deletion(maker: Maker): Sql {
  const few = maker.number(9);
  return maker.pick<Sql>(
    sql`DELETE FROM accounts WHERE id >= 12`,
    sql`DELETE FROM accounts WHERE id % 9 = ${few}`,
    sql`DELETE FROM edges WHERE id >= 12`,
    sql`DELETE FROM edges WHERE id % 9 = ${few} OR t = ${maker.words()}`,
    sql`DELETE FROM loose WHERE n = ${few} OR n > 25`,
    sql`DELETE FROM loose`,
    sql`DELETE FROM smalls WHERE n = ${few} OR length(code) > 3`,
    sql`DELETE FROM history WHERE day > 39 OR day % 9 = ${few}`,
    sql`DELETE FROM slots WHERE holder % 9 <= ${few}`,
    sql`DELETE FROM people WHERE age % 9 = ${few} OR email LIKE 'p%'`,
    sql`DELETE FROM documents WHERE size % 9 = ${few} OR size > 80`,
    sql`DELETE FROM entries WHERE line = ${few}`,
  );
}

/** Each changed row meets one row at most: of several PostgreSQL takes any. */
function updateJoined(maker: Maker): Sql {
  const key = maker.pick<Sql>(
    sql``,
    sql` AND ${maker.is('a.tenant_id', maker.tenant())}`,
    sql` AND a.tenant_id IN (${maker.tenant()}, ${maker.tenant()})`,
  );
  const returning = maker.pick('', ' RETURNING a.tenant_id, a.id', ' RETURNING a.*');
  switch (maker.below(6)) {
    case 0:
      return sql`UPDATE entries e SET amount = e.amount + 1, note = a.name FROM accounts a WHERE a.tenant_id = e.tenant_id AND a.id = e.account_id${key}${returning}`;
    case 1:
      return sql`UPDATE loose l SET v = a.name FROM accounts a WHERE l.tenant_id = a.tenant_id AND a.id = l.n${key}${returning}`;
    case 2:
      return sql`UPDATE history h SET body = left(a.name, 9) FROM accounts a JOIN edges g USING (tenant_id, id) WHERE h.tenant_id = a.tenant_id AND a.id = h.day${key}`;
    case 3:
      return sql`UPDATE accounts a SET balance = c.price FROM codes c WHERE c.code = a.id AND a.balance < ${maker.amount()}${key}${returning}`;
    case 4:
      return sql`UPDATE accounts a SET balance = (SELECT count(*) FROM entries e WHERE e.tenant_id = a.tenant_id AND e.account_id = a.id) WHERE true${key}${returning}`;
    default:
      return sql`UPDATE accounts a SET name = h.body || a.name FROM history h WHERE h.tenant_id = a.tenant_id AND h.day = a.id AND length(a.name) < 50 AND h.body IS NOT NULL${key}${returning}`;
  }
}

function deleteJoined(maker: Maker): Sql {
  const key = maker.pick<Sql>(
    sql``,
    sql` AND ${maker.is('a.tenant_id', maker.tenant())}`,
    sql` AND a.tenant_id IN (${maker.tenant()}, ${maker.tenant()})`,
  );
  switch (maker.below(6)) {
    case 0:
      return sql`DELETE FROM entries e USING accounts a WHERE a.tenant_id = e.tenant_id AND a.id = e.account_id AND a.balance > ${maker.amount()}${key} RETURNING e.*`;
    case 1:
      return sql`DELETE FROM loose l USING accounts a WHERE (l.tenant_id, l.n) = (a.tenant_id, a.id)${key}`;
    case 2:
      return sql`DELETE FROM accounts a USING codes c WHERE c.code = a.id AND c.price > ${maker.number(9)}${key} RETURNING a.id, a.tenant_id`;
    case 3:
      return sql`DELETE FROM accounts a WHERE EXISTS (SELECT FROM history h WHERE h.tenant_id = a.tenant_id AND h.day = a.id)${key} RETURNING *`;
    case 4:
      return sql`DELETE FROM accounts a WHERE NOT EXISTS (SELECT FROM entries e WHERE e.tenant_id = a.tenant_id) AND a.id > ${maker.number(9)}${key}`;
    default:
      return sql`DELETE FROM smalls s USING accounts a WHERE s.tenant_id = a.tenant_id AND s.n = a.id${key} RETURNING s.*`;
  }
}

function byOtherKeys(maker: Maker): Sql {
  const returning = maker.pick('', ' RETURNING *');
  const [email, other, doc] = [maker.email(), maker.email(), maker.doc()];
  return maker.pick<Sql>(
    sql`UPDATE people SET age = age + 1 WHERE ${maker.is('email', email)}${returning}`,
    sql`UPDATE people SET name = ${maker.words()} WHERE email IN (${email}, ${other})${returning}`,
    sql`UPDATE people SET name = 'any' WHERE email = ANY (${cast(texts([email.text ?? '', other.text ?? '']))})${returning}`,
    sql`DELETE FROM people WHERE email = ${email}${returning}`,
    sql`DELETE FROM people WHERE email IN (${email}, ${other}) AND age > 20${returning}`,
    sql`UPDATE documents SET size = size + 1, doc = doc WHERE ${maker.is('doc', doc)}${returning}`,
    sql`UPDATE documents SET title = ${maker.words()} WHERE doc IN (${doc}, ${maker.doc()}, ${maker.doc()})${returning}`,
    sql`DELETE FROM documents WHERE doc = ${doc}${returning}`,
    sql`UPDATE smalls SET n = ${maker.number(9)} WHERE ${maker.is('tenant_id', maker.small())}${returning}`,
    sql`DELETE FROM smalls WHERE tenant_id IN (${maker.small()}, ${maker.small()}) AND n < 5${returning}`,
  );
}

function nullKeys(maker: Maker): Sql {
  const returning = maker.pick('', ' RETURNING *');
  return maker.pick<Sql>(
    sql`UPDATE loose SET n = n + 1 WHERE tenant_id IS NULL AND n < ${maker.number(30)}${returning}`,
    sql`DELETE FROM loose WHERE tenant_id IS NULL AND n = ${maker.number(30)}${returning}`,
    sql`UPDATE loose SET n = 3 WHERE tenant_id IS NOT DISTINCT FROM ${cast(nothing('int8'))} AND n > 20${returning}`,
    sql`UPDATE loose SET n = 4 WHERE tenant_id = ${cast(nothing('int8'))}${returning}`,
    sql`DELETE FROM loose WHERE tenant_id IN (${maker.tenant()}, NULL, ${maker.tenant()}) AND n < 9${returning}`,
    sql`DELETE FROM loose WHERE tenant_id NOT IN (${maker.tenant()}, NULL)${returning}`,
    sql`UPDATE loose SET v = 'none' WHERE tenant_id = ${absent()} OR tenant_id IS NULL${returning}`,
  );
}

function commonTable(maker: Maker): Sql {
  const key = maker.tenant();
  const same = maker.is('tenant_id', key);
  switch (maker.below(6)) {
    case 0:
      return sql`WITH d AS (DELETE FROM loose WHERE ${same} AND n < ${maker.number(30)} RETURNING *) SELECT n, v FROM d`;
    case 1:
      return sql`WITH u AS (UPDATE accounts SET balance = balance + 1 WHERE ${same} RETURNING id, balance) SELECT count(*), sum(balance) FROM u`;
    case 2:
      return sql`WITH d AS (DELETE FROM history WHERE ${same} AND day > ${maker.number(40)} RETURNING *)
        INSERT INTO loose SELECT ${cast(key)}, day, body FROM d RETURNING n`;
    case 3:
      return sql`WITH a AS (INSERT INTO accounts (tenant_id, id) VALUES (${key}, ${maker.id()}) ON CONFLICT (tenant_id, id) DO UPDATE SET balance = 1 RETURNING *)
        INSERT INTO loose (tenant_id, n) VALUES (${key}, (SELECT count(*) FROM a))`;
    case 4:
      return sql`WITH d AS (DELETE FROM loose WHERE ${same} RETURNING n), u AS (UPDATE edges SET i4 = 1 WHERE ${maker.is('tenant_id', key)} RETURNING id)
        SELECT (SELECT count(*) FROM d), (SELECT sum(id) FROM u)`;
    default:
      return sql`WITH chosen AS (SELECT id, balance FROM accounts WHERE ${same} AND id < ${maker.number(12)})
        UPDATE history h SET body = chosen.balance::text FROM chosen WHERE ${maker.is('h.tenant_id', key)} AND h.day = chosen.id RETURNING h.day, h.body`;
  }
}

function merge(maker: Maker): Sql {
  const key = maker.tenant();
  const returning = maker.pick('', ' RETURNING merge_action(), t.*');
  switch (maker.below(6)) {
    case 0:
      return sql`MERGE INTO accounts t USING codes c ON ${maker.is('t.tenant_id', key)} AND t.id = c.code
        WHEN MATCHED AND c.price > ${maker.number(9)} THEN DELETE WHEN MATCHED THEN UPDATE SET balance = c.price
        WHEN NOT MATCHED AND c.code < 6 THEN INSERT (tenant_id, id, name) VALUES (${key}, c.code, c.label)${returning}`;
    case 1:
      return sql`MERGE INTO history t USING (SELECT * FROM accounts WHERE ${maker.is('tenant_id', key)}) s ON t.tenant_id = s.tenant_id AND t.day = s.id
        WHEN MATCHED THEN UPDATE SET body = left(s.name, 12) WHEN NOT MATCHED AND s.id < ${maker.number(12)} THEN INSERT VALUES (${key}, s.id, 'merged')${returning}`;
    case 2:
      return sql`MERGE INTO edges t USING (VALUES (${cast(maker.number(6))}, ${cast(maker.words())}), (9, 'nine')) s (id, word) ON t.tenant_id = ${key} AND t.id = s.id
        WHEN MATCHED THEN UPDATE SET t = s.word WHEN NOT MATCHED THEN INSERT (id, tenant_id, t) VALUES (s.id, ${key}, s.word)${returning}`;
    case 3:
      return sql`MERGE INTO loose t USING codes c ON t.n = c.code AND ${maker.is('t.tenant_id', key)} WHEN MATCHED AND c.price > 5 THEN DELETE WHEN MATCHED THEN DO NOTHING${returning}`;
    case 4:
      return sql`MERGE INTO codes t USING rates r ON t.code = r.rate WHEN MATCHED AND t.price < 100 THEN UPDATE SET price = t.price + 1
        WHEN MATCHED THEN DO NOTHING`;
    default:
      return sql`MERGE INTO smalls t USING (SELECT ${cast(maker.number(9))} AS n) s ON t.tenant_id = 3 AND t.code = 'c' || s.n
        WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT VALUES (3, 'c' || s.n, s.n)${returning}`;
  }
}

function everyShard(maker: Maker): Sql {
  const returning = maker.pick('', ' RETURNING *');
  return maker.pick<Sql>(
    sql`UPDATE codes SET price = price + ${maker.number(9)} WHERE code < ${maker.number(30)}${returning}`,
    sql`UPDATE codes c SET price = (SELECT r.rate FROM rates r WHERE r.name = ${maker.pick("'a'", "'b'")} || '') WHERE c.code % 5 = ${maker.number(5)}`,
    sql`DELETE FROM codes WHERE code > 30 OR code = ${maker.number(30)}${returning}`,
    sql`UPDATE rates SET rate = ${maker.number(50)} WHERE name = ANY (${cast(texts(['a', 'r1', 'r2']))})${returning}`,
    sql`DELETE FROM rates WHERE rate > 45 OR ${maker.pick('char_length', 'length')}(name) > 2${returning}`,
    sql`UPDATE codes SET label = ${maker.words()} WHERE code IN (${joined([maker.number(12), maker.number(12)], ', ')})${returning}`,
    sql`WITH r AS (SELECT min(rate) AS least FROM rates) DELETE FROM codes USING r WHERE code = least${returning}`,
  );
}

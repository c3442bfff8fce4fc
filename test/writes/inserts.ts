/** One task: INSERT of every kind: one row, several over shards, from a query, with ON CONFLICT, without a key, of what every shard has. */
import { SHARDED, type Maker, type TableName } from './maker.js';
import { cast, joined, sql, type Sql } from './sql.js';
import { integer, nothing } from './values.js';
import { one, type Make } from './unit.js';

/** The columns that tell two rows of a table apart. */
const UNIQUE: Readonly<Partial<Record<TableName, readonly [string, ...string[]]>>> = {
  ...{
    accounts: ['tenant_id', 'id'],
    edges: ['tenant_id', 'id'],
    smalls: ['tenant_id', 'code'],
    history: ['tenant_id', 'day'],
  },
  ...{ people: ['email'], documents: ['doc'], codes: ['code'], rates: ['name'] },
};
const WITH_UNIQUE: readonly [TableName, ...TableName[]] = [
  'accounts',
  'edges',
  'smalls',
  'history',
  'people',
  'documents',
];

/** What DO UPDATE assigns. */
const ON_CONFLICT: Readonly<Partial<Record<TableName, readonly [string, ...string[]]>>> = {
  accounts: [
    'balance = accounts.balance + 1',
    "name = excluded.name || ''",
    'tenant_id = excluded.tenant_id, balance = 7',
  ],
  edges: ['i4 = 5', 't = excluded.t', '(i4, i8) = (1, excluded.id)', 'twice = DEFAULT, f8 = 0.5'],
  smalls: ['n = smalls.n + excluded.n', 'n = DEFAULT'],
  history: ['body = left(history.body || excluded.body, 40)'],
  people: ['age = people.age + 1, name = excluded.name'],
  documents: ['size = documents.size + excluded.size', 'title = NULL'],
  codes: ['price = codes.price + 1', 'label = excluded.label'],
  rates: ['rate = rates.rate + excluded.rate'],
};

export const INSERTS: Readonly<Record<string, Make>> = {
  'INSERT of one row': (maker) => {
    const table = maker.pick(...SHARDED);
    return one(sql`${maker.insert(table, maker.rows(table, 1, !maker.happens(4)))}`);
  },
  'INSERT of one row, RETURNING': (maker) => {
    const table = maker.pick(...SHARDED);
    const returning = maker.pick('*', 'NULL AS nothing, *', 'old.*, new.*');
    return one(sql`${maker.insert(table, maker.rows(table, 1, !maker.happens(4)))} RETURNING ${returning}`, {
      ordered: true,
    });
  },
  'INSERT of several rows': (maker) => several(maker, ''),
  'INSERT of several rows, RETURNING in order': (maker) =>
    several(maker, ` RETURNING ${maker.pick('*', '1 AS one, *', 'new.*')}`),
  'INSERT of several rows of one key': (maker) => {
    const key = maker.tenant();
    const rows = maker.rows('accounts', 2 + maker.below(3), true).map((row) => ({ ...row, tenant_id: key }));
    const distinct = [...new Map(rows.map((row) => [Object.values(row)[1]?.text, row])).values()];
    return one(sql`${maker.insert('accounts', distinct)}${maker.returning('id', 'id, balance * 2')}`, {
      ordered: true,
    });
  },
  'INSERT without a key': (maker) => one(withoutKey(maker), { ordered: true }),
  'INSERT of edge values': (maker) => {
    const rows = maker.rows('edges', 1 + maker.below(4), true);
    return one(sql`${maker.insert('edges', rows)}${maker.returning('tenant_id, id, twice', 'id AS "Id", t')}`, {
      ordered: true,
    });
  },
  'INSERT from a query': (maker) => one(fromQuery(maker)),
  'ON CONFLICT DO NOTHING': (maker) => {
    const table = maker.pick(...WITH_UNIQUE);
    const rows = maker.rows(table, 1 + maker.below(4));
    const target = maker.happens(2) ? '' : ` (${(UNIQUE[table] ?? []).join(', ')})`;
    return one(sql`${maker.insert(table, rows)} ON CONFLICT${target} DO NOTHING${maker.returning('1 AS one')}`);
  },
  'ON CONFLICT DO UPDATE': (maker) => upsert(maker, maker.pick(...WITH_UNIQUE)),
  'a text for a key': (maker) => {
    const rows = maker.rows('people', 1 + maker.below(4), maker.happens(2));
    return one(
      sql`${maker.insert('people', rows)} ON CONFLICT (email) DO UPDATE SET age = excluded.age${maker.returning('email', 'length(email)')}`,
      {
        ordered: true,
      },
    );
  },
  'a uuid for a key': (maker) => {
    const rows = maker.rows('documents', 1 + maker.below(4), maker.happens(2));
    return one(
      sql`${maker.insert('documents', rows)} ON CONFLICT (doc) DO UPDATE SET title = excluded.title${maker.returning('doc', 'doc, title')}`,
      {
        ordered: true,
      },
    );
  },
  'INSERT of what every shard has': (maker) => {
    const table = maker.pick('codes', 'rates');
    if (maker.happens(2)) return upsert(maker, table);
    if (maker.happens(4))
      return one(
        sql`INSERT INTO codes SELECT rate + ${cast(maker.number(9))}, min(name), 1 FROM rates WHERE name > ${maker.words()} GROUP BY rate ON CONFLICT DO NOTHING`,
      );
    return one(sql`${maker.insert(table, maker.rows(table, 1 + maker.below(3), true))}${maker.returning('1 AS one')}`, {
      ordered: true,
    });
  },
};

function several(maker: Maker, returning: string): ReturnType<Make> {
  const table = maker.pick(...SHARDED);
  return one(sql`${maker.insert(table, maker.rows(table, 2 + maker.below(6), true))}${returning}`, { ordered: true });
}

/** The same order of rows as they are written only where each is answered: a row that DO UPDATE passes over is not. */
function upsert(maker: Maker, table: TableName): ReturnType<Make> {
  const rows = maker.rows(table, 1 + maker.below(4));
  const where = maker.happens(3) ? ` WHERE ${table}::text > 'm'` : '';
  const set = maker.pick(...(ON_CONFLICT[table] ?? ['']));
  const unique = (UNIQUE[table] ?? []).join(', ');
  return one(
    sql`${maker.insert(table, rows)} ON CONFLICT (${unique}) DO UPDATE SET ${set}${where}${maker.returning('1 AS one', `${table}.*`)}`,
    { ordered: where === '' },
  );
}

function withoutKey(maker: Maker): Sql {
  const returning = maker.returning('n', 'v, tenant_id');
  const n = maker.number(30);
  switch (maker.below(6)) {
    case 0:
      return sql`INSERT INTO loose DEFAULT VALUES${returning}`;
    case 1:
      return sql`INSERT INTO loose (n, v) VALUES (${n}, ${maker.words()})${returning}`;
    case 2:
      return sql`INSERT INTO loose VALUES (DEFAULT, ${n})${returning}`;
    case 3:
      return sql`INSERT INTO loose VALUES (${nothing('int8')}, ${n}), (${maker.tenant()}, ${maker.number(30)}), (NULL, DEFAULT)${returning}`;
    case 4:
      return sql`INSERT INTO loose (v, tenant_id) VALUES (${maker.words()}, NULL::bigint)${returning}`;
    default:
      return sql`INSERT INTO loose (tenant_id, n) VALUES (${cast(nothing('int8'))}, ${n}), (${maker.tenant()}, NULL), (${maker.tenant()}, ${n})${returning}`;
  }
}

function fromQuery(maker: Maker): Sql {
  const key = maker.tenant();
  const same = maker.is('tenant_id', key);
  const returning = maker.returning('tenant_id');
  // The last one is refused.
  switch (maker.below(13) % 7) {
    case 0:
      return sql`INSERT INTO entries SELECT tenant_id, id, ${cast(maker.number(9))}, 5, name FROM accounts WHERE ${same} ON CONFLICT DO NOTHING${returning}`;
    case 1:
      return sql`INSERT INTO loose SELECT ${cast(key)}, code, label FROM codes WHERE code < ${maker.number(20)}${returning}`;
    case 2:
      return sql`INSERT INTO loose (n, tenant_id) SELECT a.id, a.tenant_id FROM accounts a JOIN history h USING (tenant_id) WHERE ${maker.is('a.tenant_id', key)} AND h.day = a.id${returning}`;
    case 3:
      return sql`INSERT INTO history SELECT ${cast(key)}, g, 'generated' FROM generate_series(1, ${maker.number(12)}) g ON CONFLICT DO NOTHING${returning}`;
    case 4:
      return sql`INSERT INTO history (tenant_id, day, body) SELECT tenant_id, id + ${cast(maker.number(40))}, name FROM accounts WHERE ${same} ON CONFLICT (tenant_id, day) DO UPDATE SET body = excluded.body${returning}`;
    case 5:
      return sql`INSERT INTO loose VALUES (${key}, (SELECT count(*) FROM accounts WHERE ${maker.is('tenant_id', key)}), 'counted')${returning}`;
    default:
      return sql`INSERT INTO loose WITH c AS (SELECT * FROM accounts WHERE ${same}) SELECT tenant_id, id, name FROM c WHERE balance > ${maker.amount()}${returning}`;
  }
}

/** Of several keys at once. */
export function anyOf(maker: Maker, column: string, keys: readonly Sql[] | null = null): Sql {
  const chosen = keys ?? maker.tenants(5).map((key) => sql`${key}`);
  return sql`${column} IN (${joined(chosen, ', ')})`;
}

/** A key that has no rows, so that something is counted as none. */
export function absent(): ReturnType<typeof integer> {
  return integer('int8', 77_777);
}

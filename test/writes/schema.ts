/** One task: the tables that generated writes are made for: keys of each type, rows without a key, constraints of each kind, tables on every shard. */
/** In a schema of their own, so that several streams of writes may go on beside each other. */
export function writesSchema(schema: string): string {
  return `CREATE SCHEMA ${schema};
    SET search_path = ${schema};
    CREATE TYPE mood AS ENUM ('low', 'middle', 'high');
    CREATE TABLE accounts (tenant_id bigint NOT NULL, id int NOT NULL, name text NOT NULL DEFAULT 'none',
      balance numeric NOT NULL DEFAULT 0 CHECK (balance >= -1000), mood mood, PRIMARY KEY (tenant_id, id));
    CREATE TABLE entries (tenant_id bigint, account_id int, line int, amount int NOT NULL, note text, PRIMARY KEY (tenant_id, account_id, line),
      FOREIGN KEY (tenant_id, account_id) REFERENCES accounts ON DELETE CASCADE);
    CREATE TABLE loose (tenant_id bigint, n int, v text);
    ALTER TABLE loose REPLICA IDENTITY FULL;
    CREATE TABLE edges (tenant_id bigint NOT NULL, id int NOT NULL, i2 smallint, i4 int, i8 bigint, n numeric, f4 real, f8 float8, b boolean, t text,
      v varchar(12), y bytea, j jsonb, a int[], s timestamptz, d date, u uuid, i interval, twice bigint GENERATED ALWAYS AS (id * 2) STORED,
      PRIMARY KEY (tenant_id, id));
    CREATE TABLE smalls (tenant_id int NOT NULL, code text NOT NULL, n int DEFAULT 7, PRIMARY KEY (tenant_id, code));
    CREATE TABLE people (email varchar(20) PRIMARY KEY, name text, age int CHECK (age >= 0));
    CREATE TABLE documents (doc uuid PRIMARY KEY, title text, size int NOT NULL DEFAULT 0);
    CREATE TABLE history (tenant_id bigint NOT NULL, day int NOT NULL, body text, PRIMARY KEY (tenant_id, day)) PARTITION BY RANGE (day);
    CREATE TABLE history_1 PARTITION OF history FOR VALUES FROM (0) TO (20);
    CREATE TABLE history_2 PARTITION OF history FOR VALUES FROM (20) TO (1000000);
    CREATE TABLE slots (tenant_id bigint NOT NULL, holder int NOT NULL, slot int NOT NULL, PRIMARY KEY (tenant_id, holder),
      UNIQUE (tenant_id, slot) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE codes (code int PRIMARY KEY, label text NOT NULL, price numeric CHECK (price >= 0));
    CREATE TABLE rates (name text PRIMARY KEY, rate int);
    INSERT INTO codes SELECT n, 'code ' || n, n * 1.5 FROM generate_series(1, 12) n;
    INSERT INTO rates VALUES ('a', 1), ('b', 2);
    RESET search_path;`;
}

/** The sharding columns, by the type of their key. A table has at most one of them. */
export const KEY_COLUMNS = { tenant_id: 'bigint', email: 'varchar', doc: 'uuid' } as const;

/** `null`: on every shard */
const KEY_OF: Readonly<Record<string, keyof typeof KEY_COLUMNS | null>> = {
  ...{ accounts: 'tenant_id', entries: 'tenant_id', loose: 'tenant_id', edges: 'tenant_id', smalls: 'tenant_id' },
  ...{ people: 'email', documents: 'doc', history: 'tenant_id', slots: 'tenant_id', codes: null, rates: null },
};

export const ALIKE: readonly string[] = Object.keys(KEY_OF).filter((table) => KEY_OF[table] === null);

/** For one session: empty partitioned tables that say, as PostgreSQL does, where a row with a key belongs. */
export const HASHES = Object.entries({ bigint: 'bigint', varchar: 'text', uuid: 'uuid' })
  .map(([name, type]) => `CREATE TEMPORARY TABLE by_${name} (key ${type}) PARTITION BY HASH (key);`)
  .join('\n');

/** What a table holds: rows, a sum over them, and how many are not where their key belongs. */
export interface Held {
  readonly [column: string]: unknown;
  readonly table: string;
  readonly rows: number;
  readonly sum: string;
  readonly astray: number;
}

/** @param shard null: of a database that is not sharded */
export function heldQuery(schema: string, shard: { readonly shard: number; readonly shards: number } | null): string {
  const selects = Object.entries(KEY_OF).map(([table, column]) => {
    const type = column === null ? null : KEY_COLUMNS[column];
    const astray =
      shard === null || column === null || type === null
        ? '0'
        : `count(*) FILTER (WHERE NOT satisfies_hash_partition('pg_temp.by_${type}'::regclass, ${shard.shards.toString()}, ${shard.shard.toString()},
            ${column}::${type === 'varchar' ? 'text' : type}))::int`;
    return `SELECT '${table}' AS table, count(*)::int AS rows, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text AS sum,
      ${astray} AS astray FROM ${schema}.${table} t`;
  });
  return selects.join(' UNION ALL ');
}

export function rowsQuery(schema: string, table: string): string {
  return `SELECT t::text AS row FROM ${schema}.${table} t ORDER BY t::text COLLATE "C"`;
}

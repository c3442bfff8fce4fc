/** One task: a sharded schema with the types and objects that are easily answered wrongly, and rows that are the same each time. */
import type { Placement, ShardPartition, TableShape } from '../../src/postgres/coordinator/spec.js';

export const APP_ROLE = 'coordinator_app';
export const APP_PASSWORD = 'not-to-be-seen-7f3a';
export const OWNER_ROLE = 'coordinator_owner';

export const ROLES = `
  CREATE ROLE ${OWNER_ROLE};
  CREATE ROLE ${APP_ROLE} LOGIN PASSWORD '${APP_PASSWORD}';
`;

export const SCHEMA = `
  CREATE EXTENSION hstore;
  CREATE EXTENSION citext;
  CREATE SCHEMA app AUTHORIZATION ${OWNER_ROLE};
  CREATE TYPE app.status AS ENUM ('new', 'paid', 'shipped', 'returned');
  ALTER TYPE app.status ADD VALUE 'cancelled' BEFORE 'paid';
  CREATE TYPE app.place AS (street text, number integer);
  CREATE DOMAIN app.email AS text CHECK (VALUE LIKE '%@%');
  CREATE TYPE app.span AS RANGE (subtype = float8);
  CREATE COLLATION app.bytewise (provider = libc, locale = 'C');
  CREATE COLLATION app.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

  CREATE TABLE app.tenant (id bigint PRIMARY KEY, name text NOT NULL, plan text DEFAULT 'free', created timestamptz NOT NULL);
  CREATE TABLE app.account (
    tenant_id bigint NOT NULL REFERENCES app.tenant, id bigint GENERATED ALWAYS AS IDENTITY, email app.email NOT NULL, balance numeric(20, 4),
    tags text[], profile jsonb, avatar bytea, opened date, PRIMARY KEY (tenant_id, id));
  CREATE TABLE app.orders (
    tenant_id bigint NOT NULL, id bigserial, account_id bigint NOT NULL, status app.status NOT NULL DEFAULT 'new',
    placed timestamptz NOT NULL, total numeric NOT NULL CHECK (total >= 0), note text, PRIMARY KEY (tenant_id, id));
  CREATE INDEX ON app.orders (placed);
  CREATE TABLE app.order_line (
    tenant_id bigint NOT NULL, order_id bigint NOT NULL, line integer NOT NULL, product_id integer NOT NULL, quantity integer NOT NULL,
    price numeric(12, 2) NOT NULL, discount float8, amount numeric GENERATED ALWAYS AS (quantity * price) STORED,
    PRIMARY KEY (tenant_id, order_id, line), FOREIGN KEY (tenant_id, order_id) REFERENCES app.orders);
  CREATE TABLE app.event (tenant_id bigint NOT NULL, at timestamptz NOT NULL, kind text NOT NULL, payload jsonb) PARTITION BY RANGE (at);
  CREATE TABLE app.event_2025 PARTITION OF app.event FOR VALUES FROM ('2025-01-01+00') TO ('2026-01-01+00');
  CREATE TABLE app.event_rest PARTITION OF app.event DEFAULT;
  CREATE TABLE app.edge_number (tenant_id bigint, i2 smallint, i4 integer, i8 bigint, n numeric, n2 numeric(30, 10), f4 real, f8 float8, m money, b boolean);
  CREATE TABLE app.edge_time (tenant_id bigint, tz timestamptz, ts timestamp(3), d date, t time, ttz timetz, i interval);
  CREATE TABLE app.edge_text (tenant_id bigint, t text, c text COLLATE app.bytewise, ci text COLLATE app.caseless, v varchar(20), ch char(10), ct citext, n name);
  CREATE TABLE app.edge_binary (tenant_id bigint, b bytea, u uuid, bi bit(5), vb bit varying, ip inet, net cidr, mac macaddr);
  CREATE TABLE app.edge_nested (
    tenant_id bigint, place app.place, places app.place[], grid integer[], statuses app.status[], h hstore, r int4range, span app.span,
    mr nummultirange, j json, jb jsonb, ts tsvector, x xml);
  CREATE TABLE app.by_uuid (key uuid PRIMARY KEY, value text);
  CREATE TABLE app.by_text (key varchar(40) PRIMARY KEY, value integer);
  CREATE TABLE app.sale (region text NOT NULL, id integer NOT NULL, amount numeric, PRIMARY KEY (region, id));
  CREATE TABLE app.meter (number integer NOT NULL, value float8, PRIMARY KEY (number));
  CREATE TABLE app.reading (number integer NOT NULL, value float8, PRIMARY KEY (number));
  CREATE TABLE app.document (tenant_id bigint NOT NULL, id integer PRIMARY KEY, body text NOT NULL);
  CREATE TABLE app.base (tenant_id bigint NOT NULL, v text);
  CREATE TABLE app.derived (extra integer) INHERITS (app.base);
  CREATE TABLE app.country (code text PRIMARY KEY, name text NOT NULL, population bigint);
  CREATE TABLE app.product (id integer PRIMARY KEY, name text NOT NULL, country text REFERENCES app.country);
  CREATE TABLE app.rate (at date, currency text, rate numeric);
  CREATE TABLE app.secret (tenant_id bigint NOT NULL, v text);
  ALTER TABLE app.secret ENABLE ROW LEVEL SECURITY;
  CREATE TABLE app."Odd ""Name; " (tenant_id bigint NOT NULL, "select" text, "Über" integer);
  ALTER TABLE app.edge_text ADD COLUMN gone integer, ADD COLUMN last text DEFAULT 'last';
  ALTER TABLE app.edge_text DROP COLUMN gone;

  CREATE FUNCTION app.normal(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(trim(t)) $$;
  CREATE FUNCTION app.balance_of(tenant bigint) RETURNS numeric LANGUAGE sql STABLE AS
    $$ SELECT sum(balance) FROM app.account WHERE tenant_id = tenant $$;
  CREATE FUNCTION app.orders_of(tenant bigint) RETURNS SETOF app.orders LANGUAGE plpgsql STABLE AS
    $$ BEGIN RETURN QUERY SELECT * FROM app.orders o WHERE o.tenant_id = tenant ORDER BY o.id; END $$;
  CREATE FUNCTION app.all_balances() RETURNS numeric LANGUAGE sql STABLE SECURITY DEFINER AS $$ SELECT sum(balance) FROM app.account $$;
  CREATE FUNCTION app.add_tenant(id bigint) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.tenant VALUES (id, 'x', 'free', now()) $$;
  CREATE AGGREGATE app.total(numeric) (SFUNC = numeric_add, STYPE = numeric, INITCOND = '0');

  CREATE VIEW app.account_orders AS
    SELECT a.tenant_id, a.id, a.email, o.id AS order_id, o.status, o.total FROM app.account a
      JOIN app.orders o ON o.tenant_id = a.tenant_id AND o.account_id = a.id;
  CREATE VIEW app.tenant_report AS
    SELECT t.id, t.name, count(o.id) AS orders, coalesce(sum(o.total), 0) AS total
    FROM app.tenant t LEFT JOIN app.orders o ON o.tenant_id = t.id GROUP BY t.id;
  CREATE VIEW app.big_tenants AS SELECT * FROM app.tenant_report WHERE total > 500;
  CREATE VIEW app.secrets AS SELECT * FROM app.secret;
  CREATE VIEW app.only_base AS SELECT * FROM ONLY app.base;
  CREATE MATERIALIZED VIEW app.totals AS SELECT status, count(*) AS n FROM app.orders GROUP BY 1;

  GRANT USAGE ON SCHEMA app TO ${APP_ROLE};
  GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO ${APP_ROLE};
  REVOKE ALL ON app.rate FROM ${APP_ROLE};
  GRANT SELECT (at, currency) ON app.rate TO ${APP_ROLE};
  GRANT USAGE ON ALL SEQUENCES IN SCHEMA app TO ${APP_ROLE};
  ALTER TABLE app.account OWNER TO ${OWNER_ROLE};
  ALTER FUNCTION app.all_balances() OWNER TO ${OWNER_ROLE};
  ALTER VIEW app.tenant_report OWNER TO ${OWNER_ROLE};
  GRANT SELECT ON app.tenant, app.orders TO ${OWNER_ROLE};
  DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "TimeZone" TO ''America/New_York''', current_database()); END $$;
  DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path TO app, "$user", public', current_database()); END $$;
`;

/** No clock and no random numbers: every database that runs this has the same rows. */
export const ROWS = `
  SET TimeZone = 'UTC';
  INSERT INTO app.country SELECT 'c' || i, initcap('land ' || i), i * 1000003 FROM generate_series(1, 7) i;
  INSERT INTO app.product SELECT i, 'product ' || i, CASE WHEN i % 5 > 0 THEN 'c' || (i % 5) END FROM generate_series(1, 30) i;
  INSERT INTO app.rate SELECT date '2025-01-01' + i, (ARRAY['EUR', 'USD', 'JPY'])[i % 3 + 1], round(1 + i / 7.0, 6) FROM generate_series(0, 20) i;
  INSERT INTO app.tenant SELECT i, 'Tenant ' || chr(65 + i % 26) || i, CASE WHEN i % 3 = 0 THEN 'paid' ELSE 'free' END,
    timestamptz '2024-12-30 23:30:00+00' + i * interval '17 hours 31 minutes' FROM generate_series(-3, 36) i;
  INSERT INTO app.account OVERRIDING SYSTEM VALUE SELECT t, t * 100 + a, format('user%s@%s.example', a, abs(t)), CASE WHEN a <> 4 THEN round(t * 1000.0 / (a + 1), 4) END,
    CASE a WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY['a' || a, NULL, 'with "quotes", {braces}'] END,
    jsonb_build_object('n', a, 'deep', jsonb_build_array(t, NULL, 'x'), 'e', 1.50), CASE WHEN a < 4 THEN decode(repeat(lpad(to_hex(a * 16 + abs(t) % 16), 2, '0'), a), 'hex') END,
    date '2020-02-28' + (t * a)::integer FROM generate_series(-3, 36) t, generate_series(0, 4) a;
  INSERT INTO app.orders (tenant_id, id, account_id, status, placed, total, note)
    SELECT t, abs(t) * 1000 + o, t * 100 + o % 5, (enum_range(NULL::app.status))[(abs(t) + o) % 5 + 1],
    timestamptz '2025-03-09 00:00:00+00' + (t * 37 + o * 3) * interval '97 minutes', round((abs(t) + 1) * (o + 1) * 1.37, 2), CASE WHEN o % 4 > 0 THEN repeat('n', o) END
    FROM generate_series(-3, 36) t, generate_series(0, 11) o WHERE t % 7 <> 0;
  INSERT INTO app.order_line (tenant_id, order_id, line, product_id, quantity, price, discount)
    SELECT tenant_id, id, l, (id + l) % 30 + 1, l + 1, round(1 + (id % 97) / 3.0, 2), CASE WHEN l = 1 THEN l / 8.0 END FROM app.orders, generate_series(0, 2) l;
  INSERT INTO app.event SELECT t, timestamptz '2024-12-31 20:00:00+00' + (abs(t) * 5 + e * 100) * interval '1 day', 'kind ' || e % 3, jsonb_build_object('e', e, 't', t)
    FROM generate_series(-3, 36) t, generate_series(0, 5) e;
  INSERT INTO app.edge_number SELECT t, v.* FROM generate_series(1, 8) t, (VALUES
    (32767::smallint, 2147483647, 9223372036854775807, 'NaN'::numeric, 0.0000000001, 3.4028235e38::real, 1.7976931348623157e308::float8, 92233720368547758.07::money, true),
    (-32768, -2147483648, -9223372036854775808, 1e100, -99999999999999999999.9999999999, 1e-45, 5e-324, '-1.25', false),
    (0, 0, 0, 0.10, 0.1, 'NaN', 'NaN', '0', NULL), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (1, 2, 3, 123456789.123456789, 1, '-0', '-Infinity', '1', true), (7, 7, 7, 7.700, 7.7, 0.1, 0.1, '7', false)) v;
  INSERT INTO app.edge_time SELECT t, v.* FROM generate_series(1, 8) t, (VALUES
    ('infinity'::timestamptz, '-infinity'::timestamp, 'infinity'::date, '24:00'::time, '12:00:00-15:59'::timetz, '-1 mons +2 days -03:04:05.678'::interval),
    ('-infinity', '2000-01-01 00:00:00.123456', '0044-03-15 BC', '00:00', '23:59:59.999999+15:59', '178000000 years'),
    ('2025-03-09 07:00:00.000001+00', '2025-03-09 02:30', '2025-03-09', '02:30:00.000001', '02:30-05', '1 day'), ('4713-01-01 00:00+00 BC', '294276-12-31 23:59:59.999', '5874897-12-31', '23:59:59.999999', '00:00+00', '24:00:00'),
    (NULL, NULL, NULL, NULL, NULL, NULL), ('2025-11-02 05:30:00+00', '2025-11-02 01:30', '2025-11-02', '01:30', '01:30-04', 'P1Y2M3DT4H5M6S')) v;
  INSERT INTO app.edge_text SELECT t, v.* FROM generate_series(1, 8) t, (VALUES
    ('', '', '', '', '', '', '', ''), ('Straße', 'a', 'ABC', 'É', 'pad', 'MiXed', 'name', 'z'), (E'tab\\tnew\\nline\\\\', 'B', 'abc', 'é', 'pad  ', 'mixed', 'Name', 'a'),
    ('日本語 😀', 'Z', 'abd', 'zebra', NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, 'x', 'MIXED', '_', 'm'), ('''quoted'' "double"', 'b', 'Abd', ' lead', 'trail ', 'other', '0', 'n')) v;
  INSERT INTO app.edge_binary SELECT t, v.* FROM generate_series(1, 8) t, (VALUES
    ('\\x'::bytea, '00000000-0000-0000-0000-000000000000'::uuid, B'00000', B''::varbit, '0.0.0.0'::inet, '10.0.0.0/8'::cidr, '00:00:00:00:00:00'::macaddr),
    ('\\x00ff5c27', 'ffffffff-ffff-ffff-ffff-ffffffffffff', B'10101', B'1', '::1/64', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL)) v;
  INSERT INTO app.edge_nested SELECT t, v.* FROM generate_series(1, 8) t, (VALUES
    (ROW('Main "St"', 5)::app.place, ARRAY[ROW('a,b', 1), ROW(NULL, NULL)]::app.place[], '{{1,2},{3,NULL}}'::integer[], '{new,paid}'::app.status[], 'a=>1, "b c"=>NULL'::hstore,
      '[1,5)'::int4range, '(,2.5]'::app.span, '{[1,2),(3,4]}'::nummultirange, '{"b": 1, "a":  [1.0]}'::json, '{"b": 1, "a": [1.0, null]}'::jsonb, 'fat:1A cat:2'::tsvector, '<a>1</a>'::xml),
    (ROW(NULL, NULL)::app.place, '{}', '[2:3]={7,8}', '{}', '', 'empty', '[NaN,NaN]', '{}', 'null', 'null', '', '<b/>'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)) v;
  INSERT INTO app.by_uuid SELECT md5(i::text)::uuid, 'value ' || i FROM generate_series(1, 60) i;
  INSERT INTO app.by_text SELECT 'key ' || CASE WHEN i % 2 = 0 THEN 'é' ELSE 'E' END || i, i FROM generate_series(1, 60) i;
  INSERT INTO app.sale SELECT (ARRAY['north', 'south', 'east', 'west', 'else'])[i % 5 + 1], i, round(i / 3.0, 3) FROM generate_series(1, 80) i;
  INSERT INTO app.reading SELECT i, i / 4.0 FROM generate_series(-50, 150) i;
  INSERT INTO app.meter SELECT i, i / 8.0 FROM generate_series(-50, 150) i;
  INSERT INTO app.document SELECT i % 9, i, repeat(chr(97 + i % 26) || i, 9000) FROM generate_series(1, 12) i;
  INSERT INTO app.base SELECT i, 'base ' || i FROM generate_series(1, 20) i;
  INSERT INTO app.derived SELECT i, 'derived ' || i, i * 2 FROM generate_series(1, 20) i;
  INSERT INTO app.secret SELECT i, 'secret ' || i FROM generate_series(1, 20) i;
  INSERT INTO app."Odd ""Name; " SELECT i, 'select ' || i, i % 4 FROM generate_series(1, 20) i;
  REFRESH MATERIALIZED VIEW app.totals;
`;

interface Key {
  readonly clause: string;
  /** the bounds by shard, and which rows they hold */
  readonly bounds: readonly ShardPartition[];
  /** a condition for the rows of each shard */
  readonly holds: readonly string[];
}

const OMNISHARDED: ReadonlySet<string> = new Set(['country', 'product', 'rate']);
const HASH_COLUMNS: Readonly<Record<string, string>> = { tenant: 'id', by_uuid: 'key', by_text: 'key' };

function keyOf(table: string): Key {
  if (table === 'sale')
    return {
      clause: 'PARTITION BY LIST (region)',
      bounds: [
        { shard: 0, bound: "FOR VALUES IN ('north')" },
        { shard: 1, bound: "FOR VALUES IN ('south')" },
        { shard: 0, bound: "FOR VALUES IN ('west', 'nowhere')" },
        { shard: 1, bound: 'DEFAULT' },
      ],
      holds: ["region IN ('north', 'west')", "region NOT IN ('north', 'west')"],
    };
  if (table === 'meter')
    return {
      clause: 'PARTITION BY RANGE (number)',
      bounds: [
        { shard: 0, bound: 'FOR VALUES FROM (MINVALUE) TO (50)' },
        { shard: 1, bound: 'FOR VALUES FROM (50) TO (MAXVALUE)' },
      ],
      holds: ['number < 50', 'number >= 50'],
    };
  if (table === 'reading')
    return {
      clause: 'PARTITION BY RANGE (number)',
      bounds: [
        { shard: 0, bound: 'FOR VALUES FROM (MINVALUE) TO (0)' },
        { shard: 1, bound: 'FOR VALUES FROM (0) TO (50)' },
        { shard: 0, bound: 'FOR VALUES FROM (50) TO (100)' },
        { shard: 1, bound: 'FOR VALUES FROM (100) TO (MAXVALUE)' },
      ],
      holds: ['number < 0 OR number BETWEEN 50 AND 99', 'number BETWEEN 0 AND 49 OR number >= 100'],
    };
  const column = HASH_COLUMNS[table] ?? 'tenant_id';
  const hashed = table === 'by_uuid' ? 'uuid' : table === 'by_text' ? 'text' : 'bigint';
  return {
    clause: `PARTITION BY HASH (${column})`,
    bounds: [0, 1].map((shard) => ({ shard, bound: `FOR VALUES WITH (MODULUS 2, REMAINDER ${shard.toString()})` })),
    holds: [0, 1].map(
      (shard) =>
        `satisfies_hash_partition('public.hash_${hashed}'::regclass, 2, ${shard.toString()}, ${column}::${hashed})`,
    ),
  };
}

/** What the sharding rules would say: by the key's column, and three tables on every shard. */
export function placementOf(table: TableShape): Placement {
  if (OMNISHARDED.has(table.name)) return 'omnisharded';
  const { clause, bounds } = keyOf(table.name);
  return { partitionBy: clause, partitions: bounds };
}

const SHARDED_TABLES =
  `tenant account orders order_line event edge_number edge_time edge_text edge_binary edge_nested by_uuid by_text sale
  meter reading document base secret "Odd_""Name;_"`
    .split(/\s+/)
    .map((name) => name.replaceAll('_"', ' "').replaceAll(';_', '; ').replace('Odd_', 'Odd '));

/** Leaves on a shard, which has all rows, those of its own. */
export function keepRowsOf(shard: number): string {
  const deletes = [...SHARDED_TABLES].reverse().map((name) => {
    return `DELETE FROM app.${name} WHERE NOT (${keyOf(name).holds[shard] ?? 'false'});`;
  });
  return [
    'CREATE TABLE public.hash_bigint (key bigint) PARTITION BY HASH (key);',
    'CREATE TABLE public.hash_uuid (key uuid) PARTITION BY HASH (key);',
    'CREATE TABLE public.hash_text (key text) PARTITION BY HASH (key);',
    "SET session_replication_role = 'replica';",
    ...deletes,
    'DROP TABLE public.hash_bigint, public.hash_uuid, public.hash_text;',
    'REFRESH MATERIALIZED VIEW app.totals;',
  ].join('\n');
}

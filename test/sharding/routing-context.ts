/** One task: the database that the router's tests speak about: its tables in SQL, its scheme and its catalogue. */
import {
  catalogueKey,
  type Catalogue,
  type CatalogueColumn,
  type CatalogueTable,
} from '../../src/sharding/catalogue.js';
import type { ShardingScheme } from '../../src/sharding/scheme.js';

export const SHARDS = 2;
export const SEARCH_PATH = ['public'];

/** Tables of tenants (sharded by tenant_id), two sharded otherwise, two on every shard. */
export const SCHEMA_SQL = `
  CREATE TABLE public.tenants (tenant_id bigint PRIMARY KEY, name text);
  CREATE TABLE public.orders (tenant_id bigint NOT NULL, id bigint, state text DEFAULT 'new', amount numeric, product_id int,
    PRIMARY KEY (tenant_id, id));
  CREATE TABLE public.items (tenant_id int, order_id bigint, product_id int, quantity int, note text);
  CREATE TABLE public.people (email varchar(20) PRIMARY KEY, name text, age int);
  CREATE TABLE public.documents (doc uuid PRIMARY KEY, title text);
  CREATE TABLE public.products (id int PRIMARY KEY, name text, price numeric);
  CREATE TABLE public.serials (id serial PRIMARY KEY, made timestamptz DEFAULT now(), label text);
  CREATE TABLE public.computed (tenant_id bigint DEFAULT 1 + 1, x int UNIQUE);
  CREATE VIEW public.order_view AS SELECT * FROM public.orders;
  CREATE FUNCTION public.pure(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
  CREATE FUNCTION public.reads_tables(int) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM public.orders';`;

const hash = { kind: 'hash', hasher: 'postgres' } as const;
const tenantTables = ['tenants', 'orders', 'items', 'computed'];

export const SCHEME: ShardingScheme = {
  database: 'prod',
  shards: SHARDS,
  omnisharded: [],
  schemas: [{ database: 'prod', schema: 'archive', shard: 1 }],
  tables: [
    ...tenantTables.map((table) => entry(table, 'tenant_id', 'bigint' as const)),
    entry('people', 'email', 'varchar'),
    entry('documents', 'doc', 'uuid'),
  ],
  coordinator: null,
};

function entry(table: string, column: string, type: 'bigint' | 'varchar' | 'uuid'): ShardingScheme['tables'][number] {
  return { database: 'prod', schema: null, table, column, type, mapping: hash };
}

function column(text: string): CatalogueColumn {
  const [name = '', type = '', value = 'none', maxLength] = text.split(' ');
  return {
    name,
    type,
    maxLength: maxLength === undefined ? null : Number(maxLength),
    default: value as CatalogueColumn['default'],
    generated: false,
    deterministic: true,
  };
}

function table(name: string, columns: readonly string[], uniqueKeys: readonly (readonly string[])[]): CatalogueTable {
  const [schema = 'public', bare = ''] = name.includes('.') ? name.split('.') : ['public', name];
  return { schema, name: bare, columns: columns.map(column), uniqueKeys };
}

const TABLES = [
  table('tenants', ['tenant_id int8', 'name text'], [['tenant_id']]),
  table(
    'orders',
    ['tenant_id int8', 'id int8', 'state text constant', 'amount numeric', 'product_id int4'],
    [['tenant_id', 'id']],
  ),
  table('items', ['tenant_id int4', 'order_id int8', 'product_id int4', 'quantity int4', 'note text'], []),
  table('people', ['email varchar none 20', 'name text', 'age int4'], [['email']]),
  table('documents', ['doc uuid', 'title text'], [['doc']]),
  table('products', ['id int4', 'name text', 'price numeric'], [['id']]),
  table('serials', ['id int4 computed', 'made timestamptz computed', 'label text'], [['id']]),
  table('computed', ['tenant_id int8 computed', 'x int4'], [['x']]),
  table('archive.old_orders', ['id int8', 'tenant_id int8'], [['id']]),
];

type Facts = readonly [
  schema: string,
  names: string,
  volatility: 'immutable' | 'stable' | 'volatile',
  kind?: 'a' | 'w',
];

const FUNCTIONS: readonly Facts[] = [
  ['pg_catalog', 'lower upper abs length coalesce generate_series int8 unnest md5', 'immutable'],
  ['pg_catalog', 'count sum min max avg string_agg', 'immutable', 'a'],
  ['pg_catalog', 'row_number rank', 'immutable', 'w'],
  ['pg_catalog', 'now to_char query_to_xml current_setting', 'stable'],
  ['pg_catalog', 'random nextval currval setval lastval pg_advisory_lock lo_create set_config pg_sleep', 'volatile'],
  ['public', 'pure', 'immutable'],
  ['public', 'reads_tables', 'stable'],
];

export const CATALOGUE: Catalogue = {
  tables: new Map(TABLES.map((entry) => [catalogueKey(entry.schema, entry.name), entry])),
  otherRelations: new Set([catalogueKey('public', 'order_view')]),
  functions: new Map(
    FUNCTIONS.flatMap(([schema, names, volatility, kind]) =>
      names.split(' ').map((name) => {
        const set = name === 'unnest' || name === 'generate_series';
        const kinds = { aggregate: kind === 'a', window: kind === 'w', set };
        const facts = { volatility, ...kinds, native: schema === 'pg_catalog' };
        return [catalogueKey(schema, name), facts] as const;
      }),
    ),
  ),
  unsafeOperators: new Set(['<%>']),
  ownArithmetic: false,
};

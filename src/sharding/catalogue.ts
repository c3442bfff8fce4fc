/** One task: what the router must know of a database's schema, and how to read it from a server. */
import type { Connection } from '../postgres/connection.js';

export interface CatalogueColumn {
  readonly name: string;
  /** `pg_type.typname`: int8, varchar, uuid, … */
  readonly type: string;
  /** of `varchar(n)`; null without a limit */
  readonly maxLength: number | null;
  /** what stands in a row whose INSERT leaves the column out: NULL, always the same, or computed then (nextval, now) */
  readonly default: 'none' | 'constant' | 'computed';
  /** computed from the row's other columns, so that nobody gives it a value */
  readonly generated: boolean;
  /** false: equal texts may have different bytes (a nondeterministic collation) */
  readonly deterministic: boolean;
}

export interface CatalogueTable {
  readonly schema: string;
  readonly name: string;
  /** in the table's order */
  readonly columns: readonly CatalogueColumn[];
  /** columns of the primary key, the unique constraints and the unique indexes */
  readonly uniqueKeys: readonly (readonly string[])[];
}

export type Volatility = 'immutable' | 'stable' | 'volatile';

export interface CatalogueFunction {
  /** of all functions of that name and schema, the one that promises least */
  readonly volatility: Volatility;
  readonly aggregate: boolean;
  readonly window: boolean;
  /** some of them may answer several rows */
  readonly set: boolean;
  /** all of them are in C, so no text of SQL in them reads a table */
  readonly native: boolean;
}

/** A picture of one shard's catalogue. Plain data: DDL makes a new one. */
export interface Catalogue {
  /** by `catalogueKey`; partitioned tables and partitions too */
  readonly tables: ReadonlyMap<string, CatalogueTable>;
  /** by `catalogueKey`: views, materialised views, sequences, foreign tables */
  readonly otherRelations: ReadonlySet<string>;
  /** by `catalogueKey`; those of pg_catalog too */
  readonly functions: ReadonlyMap<string, CatalogueFunction>;
  /** names of operators outside pg_catalog whose function is not immutable */
  readonly unsafeOperators: ReadonlySet<string>;
  /** there are operators outside pg_catalog on PostgreSQL's own numbers, so that the type of a sum is not certain */
  readonly ownArithmetic: boolean;
}

/** Names cannot contain a zero byte, so no two pairs share a key. */
export function catalogueKey(schema: string, name: string): string {
  return `${schema}\0${name}`;
}

export type FoundRelation =
  | { readonly kind: 'table'; readonly table: CatalogueTable }
  | { readonly kind: 'system' }
  | { readonly kind: 'other' }
  | { readonly kind: 'unknown' };

const SYSTEM_SCHEMAS = new Set(['pg_catalog', 'information_schema']);

/** The relation a name means (PostgreSQL documentation, 5.10.3): its schema's, else the first of the search path. */
export function findRelation(
  catalogue: Catalogue,
  searchPath: readonly string[],
  schema: string | null,
  name: string,
): FoundRelation {
  if (schema !== null && SYSTEM_SCHEMAS.has(schema)) return { kind: 'system' };
  for (const place of schema === null ? searchPath : [schema]) {
    const key = catalogueKey(place, name);
    const table = catalogue.tables.get(key);
    // pg_catalog comes before the path, so a table of the user's that is named like one of its own may be hidden by it.
    if (schema === null && name.startsWith('pg_') && (table !== undefined || catalogue.otherRelations.has(key)))
      return { kind: 'unknown' };
    if (table !== undefined) return { kind: 'table', table };
    if (catalogue.otherRelations.has(key)) return { kind: 'other' };
  }
  return schema === null && name.startsWith('pg_') ? { kind: 'system' } : { kind: 'unknown' };
}

export type FoundFunction = CatalogueFunction & {
  /** false: some function of that name is not PostgreSQL's own */
  readonly builtIn: boolean;
};

/** All functions a name may mean, taken together: the worst volatility counts, since types decide which one it is. */
export function findFunction(
  catalogue: Catalogue,
  searchPath: readonly string[],
  schema: string | null,
  name: string,
): FoundFunction | null {
  const places = schema === null ? new Set(['pg_catalog', ...searchPath]) : new Set([schema]);
  let found: FoundFunction | null = null;
  for (const place of places) {
    const facts = catalogue.functions.get(catalogueKey(place, name));
    if (facts === undefined) continue;
    const builtIn = SYSTEM_SCHEMAS.has(place);
    found = found === null ? { ...facts, builtIn } : worseOf(found, { ...facts, builtIn });
  }
  return found;
}

const VOLATILITIES: readonly Volatility[] = ['immutable', 'stable', 'volatile'];

function worseOf(a: FoundFunction, b: FoundFunction): FoundFunction {
  const worst = Math.max(VOLATILITIES.indexOf(a.volatility), VOLATILITIES.indexOf(b.volatility));
  return {
    volatility: VOLATILITIES[worst] ?? 'volatile',
    aggregate: a.aggregate || b.aggregate,
    window: a.window || b.window,
    set: a.set || b.set,
    native: a.native && b.native,
    builtIn: a.builtIn && b.builtIn,
  };
}

const RELATIONS = `
  SELECT n.nspname AS schema, c.relname AS name, c.relkind IN ('r', 'p') AS is_table,
    (SELECT coalesce(json_agg(json_build_object('name', a.attname, 'type', t.typname,
        'maxLength', CASE WHEN t.typname = 'varchar' AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
        'default', CASE
          WHEN a.attidentity <> '' OR a.attgenerated <> '' THEN 'computed'
          WHEN d.adbin IS NULL AND t.typtype <> 'd' THEN 'none'
          WHEN pg_get_expr(d.adbin, d.adrelid) ~ '^(-?[0-9.]+|true|false|NULL(::[a-z ]+)?|''[^'']*''::[a-zA-Z0-9_. "]+([(][0-9, ]+[)])?([[][]])?)$'
            THEN 'constant'
          ELSE 'computed' END,
        'generated', a.attgenerated <> '',
        'deterministic', coalesce(l.collisdeterministic, true)) ORDER BY a.attnum), '[]')
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT coalesce(json_agg((SELECT json_agg(a.attname) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey))), '[]')
      FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique) AS unique_keys
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`;

const FUNCTIONS = `
  SELECT n.nspname AS schema, p.proname AS name,
    CASE WHEN bool_or(p.provolatile = 'v') THEN 'volatile' WHEN bool_or(p.provolatile = 's') THEN 'stable' ELSE 'immutable' END AS volatility,
    bool_or(p.prokind = 'a') AS aggregate, bool_or(p.prokind = 'w') AS "window", bool_or(p.proretset) AS "set",
    bool_and(l.lanname IN ('c', 'internal')) AS native
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  GROUP BY n.nspname, p.proname`;

const UNSAFE_OPERATORS = `
  SELECT DISTINCT o.oprname AS name FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
    JOIN pg_proc p ON p.oid = o.oprcode
  WHERE n.nspname <> 'pg_catalog' AND p.provolatile <> 'i'`;

const OWN_ARITHMETIC = `
  SELECT FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE n.nspname <> 'pg_catalog' AND o.oprname IN ('+', '-', '*', '/', '%')
    AND (o.oprleft = 0 OR o.oprleft IN (SELECT oid FROM pg_type WHERE typcategory = 'N'))
    AND o.oprright IN (SELECT oid FROM pg_type WHERE typcategory = 'N') LIMIT 1`;

interface RelationRow {
  readonly schema: string;
  readonly name: string;
  readonly is_table: boolean;
  readonly columns: readonly CatalogueColumn[];
  readonly unique_keys: readonly (readonly string[] | null)[];
}

type FunctionRow = CatalogueFunction & { readonly schema: string; readonly name: string };

/** Reads the catalogue of one shard; tens of milliseconds for a thousand tables. May be called again at any time. */
export async function readCatalogue(connection: Connection): Promise<Catalogue> {
  const relations = await connection.query<RelationRow>(RELATIONS);
  const functions = await connection.query<FunctionRow>(FUNCTIONS);
  const operators = await connection.query<{ name: string }>(UNSAFE_OPERATORS);
  const arithmetic = await connection.query(OWN_ARITHMETIC);
  const keyOf = (row: { readonly schema: string; readonly name: string }): string => catalogueKey(row.schema, row.name);
  return {
    tables: new Map(relations.rows.filter((row) => row.is_table).map((row) => [keyOf(row), tableOf(row)])),
    otherRelations: new Set(relations.rows.filter((row) => !row.is_table).map(keyOf)),
    functions: new Map(
      functions.rows.map(({ schema, name, volatility, aggregate, window, set, native }) => [
        catalogueKey(schema, name),
        { volatility, aggregate, window, set, native },
      ]),
    ),
    unsafeOperators: new Set(operators.rows.map(({ name }) => name)),
    ownArithmetic: arithmetic.rows.length > 0,
  };
}

function tableOf({ schema, name, columns, unique_keys }: RelationRow): CatalogueTable {
  // An index over an expression has no column there: null, and no key can be proven to be in it.
  return { schema, name, columns, uniqueKeys: unique_keys.map((key) => key ?? []) };
}

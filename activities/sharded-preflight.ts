/**
 * One task: the checks of a move in which a side has several shards: whether every row finds its shard by what PostgreSQL can do itself,
 * on both ways, and whether the shards can serve what is there. Changes nothing.
 */
import type { Check, MoveRequest } from '../src/cutover/contract.js';
import { shardsOf, type Side } from '../src/cutover/side.js';
import { combined, failed, listed, ok, warning, type Finding } from '../src/postgres/preflight/check.js';
import type { IdentityPlan } from '../src/postgres/identity-plan.js';
import { publishedTables } from '../src/postgres/publications.js';
import { ORIGIN_SINCE, serverVersion } from '../src/postgres/streams.js';
import { filterProblem, unplacedFilter } from '../src/sharding/row-filter.js';
import { ruleOf, schemeOf, unusedEntries, type Rule, type ShardingScheme } from '../src/sharding/scheme.js';
import { keyTypeOf } from '../src/sharding/statement-keys.js';
import { connectionTo, type EngineContext } from './context.js';
import { lackingIdentities, preparesTables } from './prepared-identities.js';
import { shapesOf } from './published-rows.js';
import { sidesOf } from './situation.js';
import { isSharded } from './stream-ends.js';

interface Table {
  readonly name: string;
  readonly shape: Parameters<typeof ruleOf>[1];
  /** by column: its type, and whether equal values have equal bytes */
  readonly types: Readonly<Record<string, { readonly type: string; readonly exact: boolean }>>;
}

interface ForeignKey {
  readonly name: string;
  readonly table: string;
  readonly referenced: string;
  readonly columns: readonly string[];
  readonly referencedColumns: readonly string[];
}

const TABLES = `
  SELECT format('%I.%I', t.schema, t.name) AS name,
    (SELECT json_object_agg(a.attname, json_build_object('type', y.typname, 'exact', coalesce(l.collisdeterministic, true)))
      FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS types
  FROM unnest($1::text[], $2::text[]) AS t (schema, name)
  JOIN pg_class c ON c.oid = format('%I.%I', t.schema, t.name)::regclass ORDER BY 1`;

const FOREIGN_KEYS = `
  SELECT k.conname AS name, format('%I.%I', n.nspname, c.relname) AS "table", format('%I.%I', rn.nspname, r.relname) AS referenced,
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (number, place)
      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.place) AS columns,
    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (number, place)
      JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.place) AS "referencedColumns"
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
  WHERE k.contype = 'f' AND NOT c.relispartition ORDER BY 1`;

/** None where both sides have one shard. */
export async function shardingChecks(context: EngineContext, request: MoveRequest): Promise<readonly Check[]> {
  const sides = await sidesOf(context, request);
  const [from, to] = [shardsOf(sides.source), shardsOf(sides.destination)];
  if (from.length === 1 && to.length === 1) return [];
  const tables = await tablesOf(context, sides.source, request);
  const schemes = [request.source, request.destination]
    .map((name) => schemeOf(context.config(), name))
    .filter(({ shards }) => shards > 1);
  const check = (id: string, title: string, finding: Finding): Check => ({ id, title, ...finding });
  return [
    check('sharding-settings', 'Settings for several shards', await settings(context, [...from, ...to])),
    check('sharding-keys', 'Every row finds its shard', combined(schemes.map((scheme) => keys(scheme, tables)))),
    check('sharding-identity', 'Rows can move between shards', await identities(context, sides.source, request)),
    check(
      'sharding-references',
      'Foreign keys stay within a shard',
      await references(context, sides.source, schemes, tables),
    ),
    check('sharding-coordinator', 'Shards can answer and commit together', await together(context, to)),
  ];
}

async function tablesOf(context: EngineContext, source: Side, request: MoveRequest): Promise<readonly Table[]> {
  const connection = await connectionTo(context, source);
  const names = await publishedTables(connection, request.publication ?? null);
  const shapes = await shapesOf(connection, names);
  const { rows } = await connection.query<Omit<Table, 'shape'>>(TABLES, [
    shapes.map(({ schema }) => schema),
    shapes.map(({ table }) => table),
  ]);
  const byName = new Map(rows.map((row) => [row.name, row]));
  const { rows: quoted } = await connection.query<{ name: string }>(
    `SELECT format('%I.%I', t.schema, t.name) AS name FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (schema, name, place)
     ORDER BY place`,
    [shapes.map(({ schema }) => schema), shapes.map(({ table }) => table)],
  );
  return shapes.flatMap(({ shape }, index) => {
    const row = byName.get(quoted[index]?.name ?? '');
    return row ? [{ ...row, shape }] : [];
  });
}

async function settings(context: EngineContext, shards: readonly Side[]): Promise<Finding> {
  const { cutover } = context.config();
  const versions = await Promise.all(shards.map(async (shard) => serverVersion(await connectionTo(context, shard))));
  const findings: Finding[] = [];
  if (versions.some((version) => version < ORIGIN_SINCE))
    findings.push(
      failed(
        'Streams between several shards run in both directions at once, which a server older than PostgreSQL 16 cannot tell apart.',
        'Move the database to PostgreSQL 16 or newer first, with one shard.',
      ),
    );
  if (cutover.fence === 'off')
    findings.push(failed('cutover_fence is off; of several shards none is left open.', 'Set cutover_fence = "on".'));
  return findings.length > 0 ? combined(findings) : ok(`Servers and settings fit ${shards.length.toString()} shards.`);
}

function keys(scheme: ShardingScheme, tables: readonly Table[]): Finding {
  const findings: Finding[] = [];
  const unused = unusedEntries(
    scheme,
    tables.map(({ shape }) => shape),
  );
  if (unused.length > 0)
    findings.push(
      failed(
        `No table follows these rows of [[sharded_tables]] of "${scheme.database}": ${listed(unused.map(({ table, column }) => `${table ?? '*'}.${column}`))}.`,
        'Correct or remove them: a table that no row names would be on every shard.',
      ),
    );
  const ruled = tables.map((table) => ({ table, rule: ruleOf(scheme, table.shape) }));
  const hashed = ruled.flatMap(({ table, rule }) => (filterProblem(rule) === null ? [] : [table.name]));
  if (hashed.length > 0)
    findings.push(
      failed(
        `Rows of these tables find their shard by hasher "sha1", which PostgreSQL cannot compute in a row filter: ${listed(hashed)}.`,
        'Use hasher = "postgres".',
      ),
    );
  const unplaced = ruled.flatMap(({ table, rule }) => (unplacedFilter(rule) === 'false' ? [] : [table.name]));
  if (unplaced.length > 0)
    findings.push(
      failed(
        `The mapping of these tables leaves values without a shard, and a row with one would be lost: ${listed(unplaced)}.`,
        'Add a [[sharded_mappings]] row of kind = "default".',
      ),
    );
  const typed = ruled.flatMap(({ table, rule }) => typeProblem(table, rule) ?? []);
  if (typed.length > 0)
    findings.push(
      failed(`Sharding columns have another type than is configured: ${listed(typed)}.`, 'Correct data_type.'),
    );
  const placed = ruled.filter(({ rule }) => rule.kind === 'sharded').length;
  return findings.length > 0
    ? combined(findings)
    : ok(`${placed.toString()} of ${tables.length.toString()} tables are spread by a key; the others are whole.`);
}

function typeProblem({ name, types }: Table, rule: Rule): string | null {
  if (rule.kind !== 'sharded') return null;
  const column = types[rule.column];
  if (!column || keyTypeOf(column.type) !== rule.type)
    return `${name}.${rule.column} is ${column?.type ?? 'missing'}, not ${rule.type}`;
  return column.exact ? null : `${name}.${rule.column} has a collation in which equal texts may differ in their bytes`;
}

/** PostgreSQL documentation, 29.4: what a row filter names must be part of the replica identity. */
async function identities(context: EngineContext, source: Side, request: MoveRequest): Promise<Finding> {
  const plans = await plansOf(context, source, request);
  if (plans.length === 0) return ok('Every change of a row can be carried to its shard.');
  return preparesTables(context, request) ? prepared(plans) : unprepared(plans);
}

async function plansOf(context: EngineContext, source: Side, request: MoveRequest): Promise<readonly IdentityPlan[]> {
  const names = [request.source, request.destination];
  return lackingIdentities(context, await connectionTo(context, source), names, request.publication ?? null);
}

const columnsOf = ({ name, lacking }: IdentityPlan): readonly string[] => lacking.map((column) => `${name}.${column}`);

function unprepared(plans: readonly IdentityPlan[]): Finding {
  const possible = plans.filter(({ way }) => way !== null);
  return failed(
    `The sharding column is not part of the replica identity, and PostgreSQL would refuse the application's UPDATE and DELETE: ${listed(
      plans.flatMap(columnsOf),
    )}.`,
    [
      ...possible.map(({ name }) => `ALTER TABLE ${name} REPLICA IDENTITY FULL;`),
      ...plans.filter(({ way }) => way === null).map(({ name }) => `Make it part of the primary key of ${name}.`),
      ...(possible.length > 0 ? ['Or set cutover_prepare = "auto": the move does it, and undoes it at its end.'] : []),
    ].join(' '),
  );
}

/** What the move will do to the tables of whoever reads this. */
function prepared(plans: readonly IdentityPlan[]): Finding {
  const by = (way: IdentityPlan['way']): readonly IdentityPlan[] => plans.filter((plan) => plan.way === way);
  const told = (some: readonly IdentityPlan[]): string => listed(some.map(({ name, reason }) => `${name} (${reason})`));
  const findings: Finding[] = [];
  if (by(null).length > 0)
    findings.push(
      failed(
        `No replica identity with the sharding column can be made for ${told(by(null))}.`,
        'Make it part of the primary key.',
      ),
    );
  if (by('full').length > 0)
    findings.push(
      warning(
        `For the time of the move these tables get REPLICA IDENTITY FULL: each UPDATE and DELETE writes the whole old row into the WAL: ${told(by('full'))}.`,
        'Let the move do it, or make the sharding column part of the primary key.',
      ),
    );
  if (findings.length > 0) return combined(findings);
  const indexes = by('index').map(({ name, columns }) => `${name} (${columns.join(', ')})`);
  return ok(`For the time of the move these tables get a unique index as replica identity: ${listed(indexes)}.`);
}

/** The tables that the move gives a replica identity, as `public.orders`: other checks need not miss one. */
export async function preparedTables(context: EngineContext, request: MoveRequest): Promise<readonly string[]> {
  if (!preparesTables(context, request)) return [];
  const { source, destination } = await sidesOf(context, request);
  if (!isSharded({ source, destination })) return [];
  const plans = await plansOf(context, source, request);
  return plans.flatMap(({ name, way }) => (way === null ? [] : [name]));
}

async function references(
  context: EngineContext,
  source: Side,
  schemes: readonly ShardingScheme[],
  tables: readonly Table[],
): Promise<Finding> {
  const { rows } = await (await connectionTo(context, source)).query<ForeignKey>(FOREIGN_KEYS);
  const shapeOf = new Map(tables.map(({ shape }) => [`${shape.schema}.${shape.name}`, shape]));
  const shape = (name: string): Table['shape'] | undefined => shapeOf.get(name.replaceAll('"', ''));
  const apart = rows.filter((key) =>
    schemes.some((scheme) => {
      const [of, to] = [shape(key.table), shape(key.referenced)].map((found) => (found ? ruleOf(scheme, found) : null));
      if (!of || !to || to.kind === 'omnisharded' || to.kind === 'schema-all') return false;
      if (to.kind === 'shard') return of.kind !== 'shard' || of.shard !== to.shard;
      if (of.kind !== 'sharded') return true;
      return !key.columns.some((column, index) => column === of.column && key.referencedColumns[index] === to.column);
    }),
  );
  if (apart.length === 0) return ok(`${rows.length.toString()} foreign keys, each within a shard.`);
  return failed(
    `These foreign keys may refer to a row of another shard: ${listed(apart.map(({ name, table }) => `${name} of ${table}`))}.`,
    'Make the sharding column part of the foreign key, or drop it.',
  );
}

async function together(context: EngineContext, shards: readonly Side[]): Promise<Finding> {
  const [first] = shards;
  if (!first || shards.length === 1) return ok('The destination has one shard.');
  const findings: Finding[] = [];
  const { rows } = await (
    await connectionTo(context, first)
  ).query(`SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw'`);
  if (rows.length === 0)
    findings.push(
      failed(
        'The server of shard 0 has no postgres_fdw, by which queries over several shards are answered.',
        'Install it there.',
      ),
    );
  const role = await (
    await connectionTo(context, first)
  ).query<{ may: boolean }>('SELECT rolsuper AS may FROM pg_roles WHERE rolname = current_user');
  if (role.rows[0]?.may !== true)
    findings.push(
      warning(
        'The schema_admin of the destination is no superuser, and may not be allowed to make the coordinator: a database with postgres_fdw.',
        'See that it may CREATE DATABASE and CREATE EXTENSION postgres_fdw on the server of shard 0; the move fails after the copy otherwise.',
      ),
    );
  for (const [number, shard] of shards.entries()) {
    const connection = await connectionTo(context, shard);
    const set = await connection.query<{ n: number }>(`SELECT current_setting('max_prepared_transactions')::int AS n`);
    if (set.rows[0]?.n === 0)
      findings.push(
        warning(
          `Shard ${number.toString()} has max_prepared_transactions = 0: writes over several shards are refused.`,
          'Set max_prepared_transactions on every shard to as many of them as run at once, and restart it.',
        ),
      );
  }
  return findings.length > 0 ? combined(findings) : ok('They can.');
}

/**
 * One task: tell which rows of which tables a stream carries: those of the shard it leads to, and of tables that are the same on every
 * shard those of one shard only.
 */
import type { Migration } from '../src/cutover/contract.js';
import type { Connection } from '../src/postgres/connection.js';
import { publishedTables } from '../src/postgres/publications.js';
import type { PublicationOptions, PublishedTable } from '../src/postgres/streams.js';
import type { TableName } from '../src/postgres/fence.js';
import type { KeyedTable } from '../src/postgres/whole-rows.js';
import { CREATE_HASH_PARENTS, rowFilter } from '../src/sharding/row-filter.js';
import { ruleOf, schemeOf, type Rule, type TableShape } from '../src/sharding/scheme.js';
import { connectionTo, type EngineContext } from './context.js';
import type { Stream } from './stream-ends.js';

/** A table of a move with the shape that its rule is told by: a partition's is that of the table it is part of. */
interface ShapedTable extends TableName {
  readonly shape: TableShape;
}

const SHAPES = `
  SELECT t.schema, t.name AS "table", json_build_object('schema', n.nspname, 'name', c.relname, 'columns',
    (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) AS shape
  FROM unnest($1::text[], $2::text[]) AS t (schema, name)
  CROSS JOIN LATERAL (SELECT coalesce(pg_partition_root(r.relid), r.relid)::oid AS root
    FROM (SELECT format('%I.%I', t.schema, t.name)::regclass AS relid) AS r) AS p
  JOIN pg_class c ON c.oid = p.root JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2`;

/** The tables with the shapes by which their rules are told. */
export async function shapesOf(source: Connection, tables: readonly TableName[]): Promise<readonly ShapedTable[]> {
  const { rows } = await source.query<ShapedTable>(SHAPES, [tables.map((t) => t.schema), tables.map((t) => t.table)]);
  return rows;
}

/** What a publication of this stream is made with beside its tables. */
export function publicationOf({ publisher, from, shards }: Stream): PublicationOptions {
  if (shards.publishing === 1 && shards.subscribing === 1) return {};
  // Markers that came from elsewhere have gone to the other shards by the streams of those who wrote them.
  return { markersOf: { cluster: publisher.systemIdentifier, shard: from }, truncate: shards.publishing === 1 };
}

/** Every table of the migration, with the rows that this stream carries. Makes what its filters need on the publisher. May be called again. */
export async function tablesOf(
  context: EngineContext,
  migration: Migration,
  stream: Stream,
): Promise<readonly PublishedTable[]> {
  const source = await connectionTo(context, migration.source);
  const tables = await publishedTables(source, migration.publication);
  const { publishing, subscribing } = stream.shards;
  if (publishing === 1 && subscribing === 1) return tables;
  const publisher = await connectionTo(context, stream.publisher);
  await publisher.query(CREATE_HASH_PARENTS);
  const schemes = {
    publishing: schemeOf(context.config(), await context.directory.nameOf(stream.publisher)),
    subscribing: schemeOf(context.config(), await context.directory.nameOf(stream.subscriber)),
  };
  return (await shapesOf(source, tables)).map(({ schema, table, shape }) => {
    const copied = publishing > 1 && stream.from > 0 && isEverywhere(ruleOf(schemes.publishing, shape));
    const where = copied
      ? 'false'
      : subscribing === 1
        ? 'true'
        : rowFilter(ruleOf(schemes.subscribing, shape), stream.to, subscribing);
    return where === 'true' ? { schema, table } : { schema, table, where };
  });
}

/** The tables whose rows may go from one shard of the subscribing side to another, with their keys. */
export async function keyedTables(
  context: EngineContext,
  migration: Migration,
  { subscriber, shards }: Stream,
): Promise<readonly KeyedTable[]> {
  if (shards.subscribing === 1) return [];
  const source = await connectionTo(context, migration.source);
  const scheme = schemeOf(context.config(), await context.directory.nameOf(subscriber));
  const shaped = await shapesOf(source, await publishedTables(source, migration.publication));
  return shaped.flatMap(({ schema, table, shape }) => {
    const rule = ruleOf(scheme, shape);
    return rule.kind === 'sharded' ? [{ schema, table, column: rule.column }] : [];
  });
}

/** The same rows on every shard. */
export function isEverywhere({ kind }: Rule): boolean {
  return kind === 'omnisharded' || kind === 'schema-all';
}

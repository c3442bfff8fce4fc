/**
 * One task: keep moves of rows, and writes that look for their rows on several shards, from passing each other.
 *
 * Such a write visits one shard after the other. A row that is moved meanwhile, from a shard it has not seen yet to one it has, would be
 * missed, though it was there all the time. So the write takes the shared lock of the table on each of its shards before it begins, and a
 * move takes the other one: a lock by number, which lies on the table that the whole tree of partitions has as its root.
 */
import { quoteIdentifier, quoteLiteral } from '../postgres/connection.js';
import type { WrittenRelation } from '../sharding/statement-verdict.js';

/** The first of the two numbers of the locks; "CUTO". */
const LOCKS = 0x4355544f;

/** What a statement of that table says first on each of its shards, in a transaction. */
export function moveLock(table: WrittenRelation, mode: 'write' | 'move'): string {
  const lock = mode === 'write' ? 'pg_advisory_xact_lock_shared' : 'pg_advisory_xact_lock';
  return `SELECT pg_catalog.${lock}(${LOCKS.toString()}, pg_catalog.hashoid(coalesce(pg_catalog.pg_partition_root(t), t)))
    FROM (SELECT pg_catalog.to_regclass(${quoteLiteral(nameOf(table))}) AS t) AS r`;
}

/** As it stands in SQL. */
export function nameOf({ schema, table }: WrittenRelation): string {
  return `${quoteIdentifier(schema)}.${quoteIdentifier(table)}`;
}

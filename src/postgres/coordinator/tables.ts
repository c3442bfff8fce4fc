/** One task: the SQL by which a table of the shards becomes one table of the coordinator. */
import { createHash } from 'node:crypto';
import { quoteIdentifier, quoteLiteral } from '../connection.js';
import { shardName, type Placement, type ShardPartition, type TableShape } from './spec.js';

export interface TableSql {
  readonly create: readonly string[];
  /** may be refused by PostgreSQL: a primary key must hold all columns that the table is partitioned by */
  readonly primaryKey: string | null;
}

/** NAMEDATALEN - 1 (PostgreSQL documentation, 4.1.1) */
const NAME_BYTES_MAX = 63;

export function qualifiedName(table: Pick<TableShape, 'schema' | 'name'>): string {
  return `${quoteIdentifier(table.schema)}.${quoteIdentifier(table.name)}`;
}

/**
 * The statements in order. Defaults, identities, generation expressions, checks, indexes, triggers and foreign keys stay on the
 * shards: nothing is written here.
 *
 * A primary key is put on the parent alone, after its partitions: PostgreSQL then keeps an index that is invalid and never used,
 * but knows that `GROUP BY <primary key>` implies the other columns. So an omnisharded table with a primary key is partitioned as
 * well, into one partition.
 */
export function tableSql(table: TableShape, placement: Placement, omnishardedShard: number): TableSql {
  if (placement === 'omnisharded') return omnishardedSql(table, omnishardedShard);
  if ('scatteredOver' in placement) return scatteredSql(table, placement.scatteredOver);
  const partitions = onePerShard(placement.partitions);
  if (partitions !== null) return partitionedSql(table, placement.partitionBy, partitions);
  return scatteredSql(table, [...new Set(placement.partitions.map(({ shard }) => shard))]);
}

function omnishardedSql(table: TableShape, shard: number): TableSql {
  const [first] = table.primaryKey?.columns ?? [];
  if (first !== undefined)
    return partitionedSql(table, `PARTITION BY LIST (${quoteIdentifier(first)})`, [{ shard, bound: 'DEFAULT' }]);
  const create = `CREATE FOREIGN TABLE ${qualifiedName(table)} ${columnsSql(table)} ${remote(table, shard)}`;
  return { create: [create], primaryKey: null };
}

function partitionedSql(table: TableShape, partitionBy: string, partitions: readonly ShardPartition[]): TableSql {
  const name = qualifiedName(table);
  return {
    create: [
      `CREATE TABLE ${name} ${columnsSql(table)} ${partitionBy}`,
      ...partitions.map(
        ({ shard, bound }) =>
          `CREATE FOREIGN TABLE ${partOn(table, shard)} PARTITION OF ${name} ${bound} ${remote(table, shard)}`,
      ),
    ],
    primaryKey: primaryKeySql(table),
  };
}

/**
 * By inheritance: no shard is left out by the key, and no join or group is computed shard by shard. The parent is a table that could
 * hold rows; the check sees to it that it holds none, and the planner knows that.
 */
function scatteredSql(table: TableShape, shards: readonly number[]): TableSql {
  const name = qualifiedName(table);
  return {
    create: [
      `CREATE TABLE ${name} ${columnsSql(table)}`,
      `ALTER TABLE ${name} ADD CONSTRAINT cutover_no_rows_here CHECK (false) NO INHERIT`,
      ...shards.map(
        (shard) => `CREATE FOREIGN TABLE ${partOn(table, shard)} () INHERITS (${name}) ${remote(table, shard)}`,
      ),
    ],
    primaryKey: primaryKeySql(table),
  };
}

const LIST_BOUND = /^FOR VALUES IN \((?<values>[^]*)\)$/;

/**
 * A foreign partition answers every row of the shard's table, whatever its bounds say: two on one shard would answer each row twice. So
 * lists of a shard become one, and beside a DEFAULT its other bounds are not needed: what no other partition takes is in it.
 *
 * @returns null where a shard is left with several: ranges with others between them
 */
function onePerShard(partitions: readonly ShardPartition[]): readonly ShardPartition[] | null {
  const byShard = new Map<number, string>();
  for (const { shard, bound } of partitions) {
    const both = byShard.has(shard) ? unionOf(byShard.get(shard) ?? '', bound) : bound;
    if (both === null) return null;
    byShard.set(shard, both);
  }
  return [...byShard].map(([shard, bound]) => ({ shard, bound }));
}

function unionOf(one: string, other: string): string | null {
  if (one === 'DEFAULT' || other === 'DEFAULT') return 'DEFAULT';
  const [left, right] = [one, other].map((bound) => LIST_BOUND.exec(bound)?.groups?.values);
  return left === undefined || right === undefined ? null : `FOR VALUES IN (${left}, ${right})`;
}

/** The foreign table by which the coordinator reads one shard's rows of a table. */
export function partOn(table: Pick<TableShape, 'schema' | 'name'>, shard: number): string {
  return `${quoteIdentifier(shardName(shard))}.${quoteIdentifier(partitionName(table))}`;
}

function columnsSql(table: TableShape): string {
  return `(${table.columns.map(columnSql).join(', ')})`;
}

function columnSql({ name, type, collation, notNull }: TableShape['columns'][number]): string {
  const collate = collation === null ? '' : ` COLLATE ${collation}`;
  return `${quoteIdentifier(name)} ${type}${collate}${notNull ? ' NOT NULL' : ''}`;
}

function remote(table: TableShape, shard: number): string {
  return (
    `SERVER ${quoteIdentifier(shardName(shard))} ` +
    `OPTIONS (schema_name ${quoteLiteral(table.schema)}, table_name ${quoteLiteral(table.name)})`
  );
}

function primaryKeySql(table: TableShape): string | null {
  if (table.primaryKey === null) return null;
  const columns = table.primaryKey.columns.map(quoteIdentifier).join(', ');
  const constraint = quoteIdentifier(table.primaryKey.name);
  return `ALTER TABLE ONLY ${qualifiedName(table)} ADD CONSTRAINT ${constraint} PRIMARY KEY (${columns})`;
}

/** `schema.table` where it fits, so that EXPLAIN is read easily; a shard's schema holds the tables of all schemas. */
function partitionName(table: Pick<TableShape, 'schema' | 'name'>): string {
  const whole = `${table.schema}.${table.name}`;
  if (Buffer.byteLength(whole) <= NAME_BYTES_MAX && !table.schema.includes('.')) return whole;
  const hash = createHash('sha256').update(qualifiedName(table)).digest('hex').slice(0, 16);
  return `${Buffer.from(table.name)
    .subarray(0, NAME_BYTES_MAX - 20)
    .toString('latin1')
    .replaceAll(/[^\w]/g, '_')}_${hash}`;
}

/** One task: the SQL by which a table of the shards becomes one table of the coordinator. */
import { createHash } from 'node:crypto';
import { invariant } from '../../errors/invariant.js';
import { quoteIdentifier, quoteLiteral } from '../connection.js';
import { shardName, type Placement, type ShardPartition, type TableShape } from './spec.js';

export interface TableSql {
  readonly create: readonly string[];
  /** may be refused by PostgreSQL: a primary key must hold all columns that the table is partitioned by */
  readonly primaryKey: string | null;
}

/** NAMEDATALEN - 1 (PostgreSQL documentation, 4.1.1) */
const NAME_BYTES_MAX = 63;

export function qualifiedName(table: { readonly schema: string; readonly name: string }): string {
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
  const columns = `(${table.columns.map(columnSql).join(', ')})`;
  const name = qualifiedName(table);
  const first = table.primaryKey?.columns[0];
  if (placement === 'omnisharded' && first === undefined)
    return { create: [`CREATE FOREIGN TABLE ${name} ${columns} ${remote(table, omnishardedShard)}`], primaryKey: null };
  const { partitionBy, partitions } =
    placement === 'omnisharded'
      ? {
          partitionBy: `PARTITION BY LIST (${quoteIdentifier(first ?? '')})`,
          partitions: [{ shard: omnishardedShard, forValues: 'DEFAULT' }],
        }
      : placement;
  expectOnePartitionPerShard(name, partitions);
  return {
    create: [
      `CREATE TABLE ${name} ${columns} ${partitionBy}`,
      ...partitions.map(
        ({ shard, forValues }) =>
          `CREATE FOREIGN TABLE ${quoteIdentifier(shardName(shard))}.${quoteIdentifier(partitionName(table))} ` +
          `PARTITION OF ${name} ${forValues} ${remote(table, shard)}`,
      ),
    ],
    primaryKey: primaryKeySql(table),
  };
}

/** Two partitions over one shard's table would each answer all of its rows: every row twice. */
function expectOnePartitionPerShard(table: string, partitions: readonly ShardPartition[]): void {
  const shards = new Set(partitions.map(({ shard }) => shard));
  invariant(shards.size === partitions.length, `table ${table} has two partitions on one shard`);
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
function partitionName(table: TableShape): string {
  const whole = `${table.schema}.${table.name}`;
  if (Buffer.byteLength(whole) <= NAME_BYTES_MAX && !table.schema.includes('.')) return whole;
  const hash = createHash('sha256').update(qualifiedName(table)).digest('hex').slice(0, 16);
  return `${Buffer.from(table.name)
    .subarray(0, NAME_BYTES_MAX - 20)
    .toString('latin1')
    .replaceAll(/[^\w]/g, '_')}_${hash}`;
}

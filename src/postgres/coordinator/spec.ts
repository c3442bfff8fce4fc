/** One task: say what a coordinator database is made from, in terms of PostgreSQL alone: no mapping, no configuration. */
import { CutoverError, messageOf } from '../../errors/errors.js';
import type { Endpoint } from '../endpoint.js';

/** The rows of a table lie on the shards, each row on one, by a rule that PostgreSQL's partitioning can say. */
export interface ShardedPlacement {
  /** the whole clause: `PARTITION BY HASH (tenant_id)`, `PARTITION BY LIST (…)`, `PARTITION BY RANGE (…)` */
  readonly partitionBy: string;
  readonly partitions: readonly ShardPartition[];
}

/** Several may be on one shard. */
export interface ShardPartition {
  readonly shard: number;
  /** the whole clause: `FOR VALUES WITH (…)`, `FOR VALUES IN (…)`, `FOR VALUES FROM (…) TO (…)` or `DEFAULT` */
  readonly bound: string;
}

/** Each row on one of these shards, by a rule that PostgreSQL's partitioning cannot say: every read asks all of them. */
export interface ScatteredPlacement {
  readonly scatteredOver: readonly number[];
}

/** Omnisharded: every shard has all rows, and one of them answers. */
export type Placement = ShardedPlacement | ScatteredPlacement | 'omnisharded';

export interface Column {
  readonly name: string;
  /** as `format_type` writes it, with its schema */
  readonly type: string;
  /** with its schema, quoted; null where the column has its type's own */
  readonly collation: string | null;
  readonly notNull: boolean;
}

/** A table as it is on the shards. A partition or an inheritance child there is a table of its own here. */
export interface TableShape {
  readonly schema: string;
  readonly name: string;
  /** in their order: a row of the table has it too */
  readonly columns: readonly Column[];
  /** null where there is none, or a deferrable one */
  readonly primaryKey: { readonly name: string; readonly columns: readonly string[] } | null;
  /** the shard shows each role other rows */
  readonly rowSecurity: boolean;
}

/** With which name and password one role of the coordinator reaches a shard. */
export interface Login {
  readonly user: string;
  /** absent: the shard lets the user in without one */
  readonly password?: string;
}

export interface CoordinatorUser {
  /** the role by which the proxy logs in at the coordinator */
  readonly role: string;
  /** by the number of the shard */
  readonly logins: readonly Login[];
}

export interface CoordinatorSpec {
  /** by number, with the engine's credentials; the coordinator's server must reach them by these addresses too */
  readonly shards: readonly Endpoint[];
  /** asked for every table of the shards, partitions included; must give the same answer each time */
  readonly placementOf: (table: TableShape) => Placement;
  readonly users: readonly CoordinatorUser[];
  /** which shard answers omnisharded tables; default 0 */
  readonly omnishardedShard?: number;
  /** more options of postgres_fdw for every shard's server, `sslmode` for instance; never `updatable` */
  readonly serverOptions?: Readonly<Record<string, string>>;
  /** a pg_dump of the system instead of the built-in one */
  readonly pgDumpPath?: string;
}

/** Something of the shards that the coordinator does not have, and why. A statement that names it must not be sent there. */
export interface LeftOut {
  /** `table app.invoice`, `view app.late`, … */
  readonly object: string;
  readonly reason: string;
}

/** The schema of the partitions of a shard and the name of its foreign server. */
export function shardName(shard: number): string {
  return `cutover_shard_${shard.toString()}`;
}

/** @param problem what could not be done, without a statement's text: it may hold a password */
export function coordinatorFailed(database: string, problem: string, cause?: unknown): CutoverError {
  const whole = cause === undefined ? problem : `${problem}: ${messageOf(cause)}`;
  return new CutoverError('coordinator_failed', { database, problem: whole }, cause === undefined ? {} : { cause });
}

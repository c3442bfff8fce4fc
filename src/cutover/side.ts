/** One task: name a side of a migration by what cannot change, not by what the configuration calls it. */

/** A database of a cluster, whatever name the configuration gives it. */
export interface Side {
  /** `system_identifier` of pg_control_system(): the same on a standby, another on every other cluster */
  readonly systemIdentifier: string;
  /** oid of the database in its cluster */
  readonly databaseOid: number;
  /** the shards from 1 on, in their order, where this is shard 0 of several: the side of a move is known by its shard 0 */
  readonly otherShards?: readonly Side[];
}

/** A side at the moment an epoch began; a fail-over shows as another timeline. */
export interface PinnedSide extends Side {
  readonly timeline: number;
  readonly otherShards?: readonly PinnedSide[];
}

/** Whether two sides have the same shard 0. */
export function sameSide(a: Side, b: Side): boolean {
  return a.systemIdentifier === b.systemIdentifier && a.databaseOid === b.databaseOid;
}

/** A key for maps: `7300000000000000000/16384`, of shard 0 alone. */
export function sideKey(side: Side): string {
  return `${side.systemIdentifier}/${side.databaseOid.toString()}`;
}

/** The side alone, without what else is known of it. */
export function sideOf({ systemIdentifier, databaseOid, otherShards }: Side): Side {
  const shard = { systemIdentifier, databaseOid };
  return otherShards === undefined ? shard : { ...shard, otherShards: otherShards.map(sideOf) };
}

/** Every shard of a side in order, from shard 0 on; the side itself where it has one. */
export function shardsOf(side: PinnedSide): readonly PinnedSide[];
export function shardsOf(side: Side): readonly Side[];
export function shardsOf(side: Side): readonly Side[] {
  return [side, ...(side.otherShards ?? [])];
}

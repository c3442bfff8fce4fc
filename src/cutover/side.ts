/** One task: name a side of a migration by what cannot change, not by what the configuration calls it. */

/** A database of a cluster, whatever name the configuration gives it. */
export interface Side {
  /** `system_identifier` of pg_control_system(): the same on a standby, another on every other cluster */
  readonly systemIdentifier: string;
  /** oid of the database in its cluster */
  readonly databaseOid: number;
}

/** A side at the moment an epoch began; a fail-over shows as another timeline. */
export interface PinnedSide extends Side {
  readonly timeline: number;
}

export function sameSide(a: Side, b: Side): boolean {
  return a.systemIdentifier === b.systemIdentifier && a.databaseOid === b.databaseOid;
}

/** A key for maps: `7300000000000000000/16384`. */
export function sideKey(side: Side): string {
  return `${side.systemIdentifier}/${side.databaseOid.toString()}`;
}

/** The side alone, without what else is known of it. */
export function sideOf({ systemIdentifier, databaseOid }: Side): Side {
  return { systemIdentifier, databaseOid };
}

/**
 * One task: native logical replication from one database to another: publication, slot, subscription.
 *
 * Forward and reverse are the same code with the sides exchanged. Every function may be called again: it makes what is
 * missing and leaves what is there. Connection strings stay between the two servers and this process.
 */
import { randomBytes } from 'node:crypto';
import { quoteIdentifier, quoteLiteral, type Connection } from './connection.js';
import { conninfoOf, type Endpoint } from './endpoint.js';
import { qualified, type TableName } from './fence.js';
import { QUIET_SETTINGS } from './quiet.js';
import { endCopySessions } from './copy-session.js';
import { scramVerifier } from './scram-verifier.js';
import { stamped } from './subscription-stamp.js';

export type Direction = 'forward' | 'reverse';

/** PostgreSQL 16 is the first whose publisher can leave out what came by replication (`origin = none`). */
export const ORIGIN_SINCE = 160000;

/** From which shard of the publishing side to which one of the subscribing side a stream leads. */
export interface ShardPair {
  readonly from: number;
  readonly to: number;
}

/**
 * The one name of the publication, slot and subscription of a stream: valid as a slot name (lower case, 63 bytes).
 *
 * @param shards null: both sides have one shard
 */
export function streamName(migration: string, direction: Direction, shards: ShardPair | null = null): string {
  const name = `cutover_${migration}_${direction}`;
  return shards === null ? name : `${name}_${shards.from.toString()}_${shards.to.toString()}`;
}

/**
 * The role by which the streams that leave a shard are read. Where a side has several shards each has its own: they may be databases of
 * one server, whose roles are shared.
 */
export function replicationRole(migration: string, direction: Direction, shard: number | null): string {
  const stream = shard === null ? '' : `${direction}_${shard.toString()}_`;
  return `cutover_${migration}_${stream}replication`;
}

export async function serverVersion(connection: Connection): Promise<number> {
  const { rows } = await connection.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int AS version`,
  );
  return rows[0]?.version ?? 0;
}

/**
 * Keeps a statement that carries a password out of the server's log and views where the role may.
 */
async function quietly(connection: Connection, statement: string): Promise<void> {
  const { rows } = await connection.query(
    `SELECT set_config(name, value, false) FROM json_each_text($1) AS setting (name, value)
     WHERE current_setting('is_superuser') = 'on'`,
    [JSON.stringify(QUIET_SETTINGS)],
  );
  try {
    await connection.query(statement);
  } finally {
    if (rows.length > 0)
      await connection.query(
        Object.keys(QUIET_SETTINGS)
          .map((name) => `RESET ${name}`)
          .join('; '),
      );
  }
}

/**
 * Makes the role by which the other side connects, with a new random password each time, known to nobody else.
 *
 * The password reaches this server as a SCRAM verifier only (RFC 5803), so no log of it can hold the password.
 *
 * @returns the endpoint the other side's subscription connects to
 */
export async function ensureReplicationRole(
  publisher: Connection,
  endpoint: Endpoint,
  role: string,
  tables: readonly TableName[],
): Promise<Endpoint> {
  const password = randomBytes(24).toString('base64url');
  const { rows } = await publisher.query('SELECT FROM pg_roles WHERE rolname = $1', [role]);
  const verb = rows.length > 0 ? 'ALTER' : 'CREATE';
  await quietly(
    publisher,
    `${verb} ROLE ${quoteIdentifier(role)} LOGIN REPLICATION PASSWORD ${quoteLiteral(scramVerifier(password))}`,
  );
  const schemas = [...new Set(['cutover', ...tables.map((t) => t.schema)])];
  const grants = [
    ...schemas.map((s) => `GRANT USAGE ON SCHEMA ${quoteIdentifier(s)} TO ${quoteIdentifier(role)}`),
    ...tables.map((t) => `GRANT SELECT ON ${qualified(t)} TO ${quoteIdentifier(role)}`),
    `GRANT SELECT ON cutover.marker TO ${quoteIdentifier(role)}`,
  ];
  await publisher.query(grants.join('; '));
  return { ...endpoint, user: role, password };
}

/**
 * Ends the role and everything granted to it. May be called again.
 *
 * Who made a role may end it, but has its privileges, which DROP OWNED asks for, only after granting them to himself (PostgreSQL
 * documentation, 21.2, role attributes, and DROP OWNED). Before 16 only a superuser can have made it, who needs no grant.
 */
export async function dropReplicationRole(publisher: Connection, role: string): Promise<void> {
  const { rows } = await publisher.query<{ usable: boolean }>(
    `SELECT pg_has_role(oid, 'USAGE') AS usable FROM pg_roles WHERE rolname = $1`,
    [role],
  );
  const [found] = rows;
  if (!found) return;
  const quoted = quoteIdentifier(role);
  const own = found.usable ? '' : `GRANT ${quoted} TO CURRENT_USER WITH INHERIT TRUE; `;
  await publisher.query(`${own}DROP OWNED BY ${quoted}; DROP ROLE ${quoted}`);
}

/** A table of a publication; with a condition for the rows that belong to its subscriber (PostgreSQL documentation, 29.4). */
export interface PublishedTable extends TableName {
  /** absent: all of them */
  readonly where?: string;
}

export interface PublicationOptions {
  /** which markers are published: absent all, else those that the publisher has written, as this shard */
  readonly markersOf?: { readonly cluster: string; readonly shard: number };
  /** false: TRUNCATE is left out; default true */
  readonly truncate?: boolean;
}

/** Publishes `tables` and the marker; brings an existing publication to exactly that set. */
export async function ensurePublication(
  publisher: Connection,
  name: string,
  tables: readonly PublishedTable[],
  { markersOf, truncate = true }: PublicationOptions = {},
): Promise<void> {
  const markers = { schema: 'cutover', table: 'marker' };
  const own = markersOf && `cluster = ${quoteLiteral(markersOf.cluster)} AND shard = ${markersOf.shard.toString()}`;
  const list = [own === undefined ? markers : { ...markers, where: own }, ...tables]
    .map((table: PublishedTable) =>
      table.where === undefined ? qualified(table) : `${qualified(table)} WHERE (${table.where})`,
    )
    .join(', ');
  const { rows } = await publisher.query('SELECT FROM pg_publication WHERE pubname = $1', [name]);
  await publisher.query(
    rows.length > 0
      ? `ALTER PUBLICATION ${quoteIdentifier(name)} SET TABLE ${list}`
      : `CREATE PUBLICATION ${quoteIdentifier(name)} FOR TABLE ${list}${truncate ? '' : ` WITH (publish = 'insert, update, delete')`}`,
  );
}

/** Whether a publication has all of these tables. */
export async function publishes(publisher: Connection, name: string, tables: readonly TableName[]): Promise<boolean> {
  const { rows } = await publisher.query<{ schema: string; table: string }>(
    'SELECT schemaname AS schema, tablename AS "table" FROM pg_publication_tables WHERE pubname = $1',
    [name],
  );
  const published = new Set(rows.map(qualified));
  return tables.every((table) => published.has(qualified(table)));
}

export async function ensureSlot(publisher: Connection, name: string): Promise<void> {
  await publisher.query(
    `SELECT pg_create_logical_replication_slot($1, 'pgoutput') WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`,
    [name],
  );
}

export interface SubscriptionOptions {
  readonly copyData: boolean;
  readonly binary: boolean;
  /** both servers are 16 or newer: leave out what came by replication, so that both directions can run at once */
  readonly originNone: boolean;
  /** has no slot yet, so that nobody can enable it: it waits for rows that others bring, see `releasing` */
  readonly held?: boolean;
}

/** Subscribes to publication and slot `name` of `publisher`; the slot must be there, unless the subscription is held. */
export async function ensureSubscription(
  subscriber: Connection,
  name: string,
  publisher: Endpoint,
  options: SubscriptionOptions,
): Promise<void> {
  const conninfo = quoteLiteral(conninfoOf(publisher, { application_name: name }));
  const { rows } = await subscriber.query<{ held: boolean }>(
    'SELECT subslotname IS NULL AS held FROM pg_subscription WHERE subname = $1',
    [name],
  );
  if (rows.length > 0) {
    await quietly(subscriber, stamped(name, `ALTER SUBSCRIPTION ${quoteIdentifier(name)} CONNECTION ${conninfo}`));
    if (options.held === true && rows[0]?.held === true) return;
    await subscriber.query(stamped(name, `ALTER SUBSCRIPTION ${quoteIdentifier(name)} ENABLE`));
    return;
  }
  const settings = [
    'create_slot = false',
    ...(options.held === true ? ['enabled = false', 'slot_name = NONE'] : [`slot_name = ${quoteLiteral(name)}`]),
    `copy_data = ${options.copyData.toString()}`,
    `binary = ${options.binary.toString()}`,
    ...(options.originNone ? ['origin = none'] : []),
  ].join(', ');
  await quietly(
    subscriber,
    stamped(
      name,
      `CREATE SUBSCRIPTION ${quoteIdentifier(name)} CONNECTION ${conninfo} PUBLICATION ${quoteIdentifier(name)} WITH (${settings})`,
    ),
  );
}

/** The statements that give a held subscription its slot and let it run, from where the slot begins. */
export function releasing(name: string): string {
  const quoted = quoteIdentifier(name);
  return stamped(
    name,
    `ALTER SUBSCRIPTION ${quoted} SET (slot_name = ${quoteLiteral(name)}); ALTER SUBSCRIPTION ${quoted} ENABLE`,
  );
}

export interface SubscriptionState {
  /** it waits for rows that others bring */
  readonly held: boolean;
  /** beside the marker */
  readonly tables: readonly TableName[];
}

/** Null where there is no such subscription. */
export async function subscriptionState(subscriber: Connection, name: string): Promise<SubscriptionState | null> {
  const { rows } = await subscriber.query<SubscriptionState>(
    `SELECT s.subslotname IS NULL AS held, coalesce((
       SELECT json_agg(json_build_object('schema', n.nspname, 'table', c.relname) ORDER BY n.nspname, c.relname)
       FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE r.srsubid = s.oid AND n.nspname <> 'cutover'), '[]') AS tables
     FROM pg_subscription s
     WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    [name],
  );
  return rows[0] ?? null;
}

/** Stops applying; the slot stays and keeps WAL. */
export async function disableSubscription(subscriber: Connection, name: string): Promise<void> {
  const { rows } = await subscriber.query('SELECT FROM pg_subscription WHERE subname = $1 AND subenabled', [name]);
  if (rows.length > 0) await subscriber.query(stamped(name, `ALTER SUBSCRIPTION ${quoteIdentifier(name)} DISABLE`));
}

/** Applies again; changes nothing where there is no such subscription, or where it runs. */
export async function enableSubscription(subscriber: Connection, name: string): Promise<void> {
  const { rows } = await subscriber.query('SELECT FROM pg_subscription WHERE subname = $1 AND NOT subenabled', [name]);
  if (rows.length > 0) await subscriber.query(stamped(name, `ALTER SUBSCRIPTION ${quoteIdentifier(name)} ENABLE`));
}

/** Removes the subscription without touching the publisher, so that it works when the publisher is gone. */
export async function dropSubscription(subscriber: Connection, name: string): Promise<void> {
  const { rows } = await subscriber.query('SELECT FROM pg_subscription WHERE subname = $1', [name]);
  if (rows.length === 0) return;
  const quoted = quoteIdentifier(name);
  // *Measured* with 14, 15 and 18: a comment would outlive its subscription.
  await subscriber.query(`COMMENT ON SUBSCRIPTION ${quoted} IS NULL; ALTER SUBSCRIPTION ${quoted} DISABLE`);
  await subscriber.query(`ALTER SUBSCRIPTION ${quoted} SET (slot_name = NONE)`);
  await subscriber.query(`DROP SUBSCRIPTION ${quoted}`);
}

/** Removes publication and slot. May be called again. */
export async function dropPublication(publisher: Connection, name: string): Promise<void> {
  // Whoever reads by a snapshot of the slot could make it again.
  await endCopySessions(publisher, [name]);
  await publisher.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(name)}`);
  await dropSlot(publisher, name);
}

const SLOT_DROP_ATTEMPTS = 50;

/** Removes a slot; one that is still in use has its walsender ended first. May be called again. */
export async function dropSlot(publisher: Connection, name: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const { rows } = await publisher.query<{ slot_name: string; active_pid: number | null }>(
      `SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()`,
      [name],
    );
    if (rows.length === 0) return;
    for (const slot of rows) {
      if (slot.active_pid !== null) await publisher.query('SELECT pg_terminate_backend($1, 1000)', [slot.active_pid]);
      try {
        await publisher.query('SELECT pg_drop_replication_slot($1)', [slot.slot_name]);
      } catch (error) {
        // In use again by a walsender that came back: the subscription is gone by now, so it will not come a third time.
        if (attempt >= SLOT_DROP_ATTEMPTS) throw error;
      }
    }
  }
}

export interface TableSync {
  readonly schema: string;
  readonly table: string;
  /** pg_subscription_rel.srsubstate: i initialise, d data copy, f finished copy, s synchronised, r ready */
  readonly state: string;
  readonly bytes: number;
  readonly rows: number;
}

/** State of each table of a subscription, with the server's own progress of running copies (pg_stat_progress_copy). */
export async function tableSyncs(subscriber: Connection, name: string): Promise<readonly TableSync[]> {
  const { rows } = await subscriber.query<TableSync>(
    `SELECT n.nspname AS schema, c.relname AS table, r.srsubstate AS state,
       coalesce(p.bytes_processed, 0)::float8 AS bytes, coalesce(p.tuples_processed, 0)::float8 AS rows
     FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
     JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_stat_progress_copy p ON p.relid = c.oid AND p.datname = current_database() AND p.command = 'COPY FROM'
     WHERE s.subname = $1 AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
     ORDER BY 1, 2`,
    [name],
  );
  return rows;
}

export interface StreamHealth {
  readonly name: string;
  readonly active: boolean;
  /** WAL between the publisher's end and what the subscriber confirmed; never decides parity */
  readonly lagBytes: number;
  /** WAL the slot keeps */
  readonly retainedBytes: number;
  readonly confirmedLsn: string | null;
  readonly lost: boolean;
}

/** The publisher's view of a slot; null when there is none. */
export async function streamHealth(publisher: Connection, name: string): Promise<StreamHealth | null> {
  const { rows } = await publisher.query<StreamHealth>(
    `SELECT slot_name AS name, active, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::float8 AS "lagBytes",
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::float8 AS "retainedBytes",
       confirmed_flush_lsn::text AS "confirmedLsn", coalesce(wal_status = 'lost', false) AS lost
     FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()`,
    [name],
  );
  return rows[0] ?? null;
}

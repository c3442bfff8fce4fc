/**
 * One task: call the functions of the protocol of record and refuse an answer from the wrong server.
 *
 * Every function here is one statement, therefore one transaction, and may be called again: a timed-out call has an
 * unknown outcome, so callers read again and never assume.
 */
import { sameSide, type PinnedSide, type Side } from '../cutover/side.js';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { Connection } from './connection.js';
import { RECORD_DDL, RECORD_VERSION } from './record-schema.js';

/** Who answered. */
export interface Identity extends PinnedSide {
  readonly inRecovery: boolean;
}

export type DecisionState = 'preparing' | 'sealed' | 'committed' | 'finalizing' | 'finalized' | 'aborted';
export type FenceState = 'open' | 'closed' | 'sealed' | 'ready' | 'refused';

export interface Decision {
  readonly epoch: number;
  readonly migration: string;
  readonly attempt: string;
  readonly nonce: string;
  readonly state: DecisionState;
  /** the name applications connect to */
  readonly database: string;
  /** the name of the other side */
  readonly peer: string;
  readonly source: PinnedSide;
  readonly destination: PinnedSide;
  readonly seal_lsn: string | null;
  readonly reason: string | null;
  /** false: moved with cutover_fence = "off"; absent or null in a record of layout 1: fenced */
  readonly fenced?: boolean | null;
  readonly begun_at: string;
  readonly decided_at: string | null;
}

export interface Fence {
  readonly epoch: number;
  readonly state: FenceState;
  readonly nonce: string;
  readonly up: boolean;
  /** where the refusal says that the other side is: `host:port/database` */
  readonly peer_address?: string;
}

/** What stands in one database. */
export interface RecordState {
  /** the layout it is written in */
  readonly version: number;
  readonly identity: Identity;
  readonly fence: Fence;
  /** newest first */
  readonly decisions: readonly Decision[];
  /** of shard 0: what stands in those of the others that answered */
  readonly otherShards?: readonly RecordState[];
}

export interface RecordedEvent {
  readonly sequence: number;
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A decided epoch whose destination serves. */
export function isCommitted(state: DecisionState): boolean {
  return state === 'committed' || state === 'finalizing' || state === 'finalized';
}

const IDENTITY_SQL = `
  SELECT (SELECT system_identifier::text FROM pg_control_system()) AS "systemIdentifier",
    (SELECT oid::bigint::int FROM pg_database WHERE datname = current_database()) AS "databaseOid",
    pg_is_in_recovery() AS "inRecovery",
    CASE WHEN pg_is_in_recovery() THEN 0
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline`;

/** Who answers on this connection; needs no schema. */
export async function readIdentity(connection: Connection): Promise<Identity> {
  const { rows } = await connection.query<Identity>(IDENTITY_SQL);
  const row = rows[0];
  invariant(row, 'the identity query answers one row');
  return row;
}

/** @throws CutoverError `wrong_server` when another server, or one in recovery, answered */
export function expectSide(answer: Identity, side: Side): void {
  if (sameSide(answer, side) && !answer.inRecovery) return;
  throw new CutoverError('wrong_server', {
    expected: side.systemIdentifier,
    actual: answer.inRecovery ? `${answer.systemIdentifier} in recovery` : answer.systemIdentifier,
  });
}

/**
 * Makes the schema `cutover` and the fence row where they are absent; changes nothing where they are present.
 *
 * @param initial `open` for the side that serves, `closed` for the side that must not take writes until it opens
 * @throws CutoverError `record_newer`
 */
export async function installRecord(connection: Connection, initial: 'open' | 'closed'): Promise<void> {
  await layoutOf(connection);
  await connection.query(
    `SELECT pg_advisory_xact_lock(hashtext('cutover.install'));
     ${RECORD_DDL}
     INSERT INTO cutover.fence (state) VALUES ('${initial}') ON CONFLICT DO NOTHING;
     SELECT setval('cutover.fence_flag', 1, true) FROM cutover.fence WHERE state = 'closed' AND epoch = 0`,
  );
}

/** Brings a record of an older program to this layout; changes nothing where it is there. @throws CutoverError `record_newer` */
export async function upgradeRecord(connection: Connection): Promise<void> {
  const layout = await layoutOf(connection);
  if (layout === null || layout === RECORD_VERSION) return;
  await connection.query(`SELECT pg_advisory_xact_lock(hashtext('cutover.install')); ${RECORD_DDL}`);
}

/** The layout of the record, null where there is none. @throws CutoverError `record_newer` */
async function layoutOf(connection: Connection): Promise<number | null> {
  const present = await connection.query<{ present: boolean }>(
    `SELECT to_regclass('cutover.decision') IS NOT NULL AND to_regclass('cutover.layout') IS NOT NULL AS present`,
  );
  if (present.rows[0]?.present !== true) return null;
  const { rows } = await connection.query<{ version: number }>('SELECT max(version) AS version FROM cutover.layout');
  const version = rows[0]?.version ?? RECORD_VERSION;
  if (version > RECORD_VERSION) throw new CutoverError('record_newer', { version, known: RECORD_VERSION });
  return version;
}

/** Tells a side where the other one is found, for the words in which it refuses writes. May be called again. */
export async function namePeer(connection: Connection, peerAddress: string): Promise<void> {
  await connection.query('UPDATE cutover.fence SET peer_address = $1 WHERE peer_address <> $1', [peerAddress]);
}

/**
 * @returns null where there is no record
 * @throws CutoverError `record_newer` when a newer version of Cutover wrote it; `record_unreachable` when a standby answers
 */
export async function readRecord(connection: Connection): Promise<RecordState | null> {
  const version = await layoutOf(connection);
  if (version === null) return null;
  const { rows } = await connection.query<{ state: Omit<RecordState, 'version'> }>(`
    SELECT jsonb_build_object(
      'identity', cutover.identity(),
      'fence', (SELECT to_jsonb(f) || jsonb_build_object('up', cutover.fence_is_up()) FROM cutover.fence f),
      'decisions', coalesce((SELECT jsonb_agg(to_jsonb(d) ORDER BY epoch DESC) FROM cutover.decision d), '[]')) AS state`);
  const row = rows[0];
  invariant(row, 'the record query answers one row');
  if (row.state.identity.inRecovery)
    throw new CutoverError('record_unreachable', {
      database: connection.database ?? '',
      problem: 'a server in recovery answers, which may be behind',
    });
  return { version, ...row.state };
}

export interface BeginRequest {
  readonly migration: string;
  /** names this attempt for good: a repeat gets the same epoch */
  readonly attempt: string;
  readonly nonce: string;
  /** the highest epoch the other side knows */
  readonly floorEpoch: number;
  readonly database: string;
  readonly peer: string;
  readonly source: PinnedSide;
  readonly destination: PinnedSide;
  /** false: cutover_fence = "off", nothing bars direct writers */
  readonly fenced: boolean;
}

/** Step 0: allots the epoch, on shard 0 of the side that serves. */
export async function beginEpoch(record: Connection, request: BeginRequest): Promise<Decision> {
  return call<Decision>(record, request.source, 'cutover.begin($1, $2, $3, $4, $5, $6, $7, $8, $9)', [
    request.migration,
    request.attempt,
    request.nonce,
    request.floorEpoch,
    request.database,
    request.peer,
    JSON.stringify(request.source),
    JSON.stringify(request.destination),
    request.fenced,
  ]);
}

export interface SealRequest {
  readonly epoch: number;
  readonly nonce: string;
  readonly shard: number;
  readonly publication: string;
  readonly lockTimeoutMs: number;
  readonly stream: string;
  readonly events: readonly RecordedEvent[];
}

/** Step 2: bars writers, waits for those in flight, writes marker and decision, raises the flag. */
export function seal(
  source: Connection,
  side: Side,
  request: SealRequest,
): Promise<{ lsn: string; repeated: boolean; tables: number }> {
  return call(source, side, 'cutover.seal($1, $2, $3, $4, $5, $6, $7)', [
    request.epoch,
    request.nonce,
    request.shard,
    request.publication,
    request.lockTimeoutMs,
    request.stream,
    JSON.stringify(request.events),
  ]);
}

export interface ReadyRequest {
  readonly epoch: number;
  readonly nonce: string;
  readonly shard: number;
  /** the stream that brings the data here: each of its tables must be in step and fenced */
  readonly subscription: string;
  readonly fenced: boolean;
}

/** Step 5 on the destination: proves that it refuses writes, stamps the epoch and writes the canary. */
export async function ready(destination: Connection, side: PinnedSide, request: ReadyRequest): Promise<Fence> {
  const { epoch, nonce, shard, subscription, fenced } = request;
  const answer = await call<Fence & Identity>(destination, side, 'cutover.ready($1, $2, $3, $4, $5)', [
    epoch,
    nonce,
    shard,
    subscription,
    fenced,
  ]);
  expectTimeline(answer, side, 'destination', `epoch ${epoch.toString()} began`);
  return answer;
}

/** @throws CutoverError `failed_over` when the server is another than the one that was pinned, by its timeline */
export function expectTimeline(answer: Identity, pinned: PinnedSide, role: string, since: string): void {
  if (answer.timeline === pinned.timeline) return;
  throw new CutoverError('failed_over', { role, since, pinned: pinned.timeline, actual: answer.timeline });
}

/** Step 6: the point of no return. Answers the decision as it stands afterwards. */
export function commitEpoch(
  record: Connection,
  side: Side,
  epoch: number,
  nonce: string,
  stream: string,
  events: readonly RecordedEvent[],
): Promise<Decision> {
  return call(record, side, 'cutover.commit($1, $2, $3, $4)', [epoch, nonce, stream, JSON.stringify(events)]);
}

/** Aborts what is not decided; answers the state as it stands afterwards, which the caller must act on. */
export function abortEpoch(
  record: Connection,
  side: Side,
  epoch: number,
  reason: string,
): Promise<Decision | { state: 'unknown' }> {
  return call(record, side, 'cutover.abort($1, $2)', [epoch, reason]);
}

/** After an abort: the source accepts writes again. Row first, flag second, in two transactions. */
export async function releaseSource(source: Connection, side: Side, epoch: number): Promise<void> {
  await call(source, side, 'cutover.release($1)', [epoch]);
  await call(source, side, 'cutover.lower($1)', [epoch]);
}

/** The same of another shard than 0, once the abort has been read on shard 0. */
export async function releaseShard(connection: Connection, shard: Side, epoch: number): Promise<void> {
  await call(connection, shard, 'cutover.release_shard($1)', [epoch]);
  await call(connection, shard, 'cutover.lower($1)', [epoch]);
}

/**
 * After a commit: a shard of the destination accepts writes. A duty of whoever goes forward. Answers its fence.
 *
 * @param shard absent: shard 0, which is all of most destinations
 * @throws CutoverError `destination_shut` when it has not heard of this epoch, or was refused: it failed over, or the source did
 */
export async function openDestination(
  destination: Connection,
  decision: Decision,
  shard: Side = decision.destination,
): Promise<Fence> {
  const { epoch } = decision;
  await call(destination, shard, 'cutover.open($1)', [JSON.stringify(decision)]);
  const fence = await call<Fence>(destination, shard, 'cutover.lower($1)', [epoch]);
  // A later epoch may have shut it again.
  if (fence.epoch > epoch || (fence.epoch === epoch && fence.state === 'open')) return fence;
  const problem = `its fence is ${fence.state} since epoch ${fence.epoch.toString()}; one of the sides failed over`;
  throw new CutoverError('destination_shut', { epoch, problem });
}

/**
 * The keeper: raises the fence of a side that does not serve where it is down.
 *
 * @param committed the decision that moved the traffic away from here, where this side lost it in a fail-over
 * @returns what was done, as words; null when all stood
 */
export async function keepFence(
  connection: Connection,
  side: Side,
  committed: Decision | null,
): Promise<string | null> {
  const answer = await call<{ kept: string | null }>(connection, side, 'cutover.keep($1)', [
    committed === null ? null : JSON.stringify(committed),
  ]);
  return answer.kept;
}

/**
 * After an abort: shuts the door of the destination for this epoch.
 *
 * @param nonce of the attempt that was aborted, null where nobody knows it any more
 * @returns its fence: `open` means it was committed
 */
export function refuseDestination(
  destination: Connection,
  side: Side,
  epoch: number,
  nonce: string | null,
): Promise<Fence> {
  return call(destination, side, 'cutover.refuse($1, $2)', [epoch, nonce]);
}

/** Appends events; those already there stay as they are. */
export async function noteEvents(
  connection: Connection,
  stream: string,
  events: readonly RecordedEvent[],
): Promise<void> {
  if (events.length === 0) return;
  await connection.query('SELECT cutover.note($1, $2)', [stream, JSON.stringify(events)]);
}

async function call<T>(connection: Connection, side: Side, expression: string, values: unknown[]): Promise<T> {
  const { rows } = await connection.query<{ answer: T & Identity }>({
    text: `SELECT ${expression} AS answer`,
    values,
  });
  const answer = rows[0]?.answer;
  invariant(answer, `${expression} answers one row`);
  expectSide(answer, side);
  return answer;
}

/**
 * Compare-and-set of a committed epoch on the way to its end; a rollback's begin takes the same lock, so one of them wins.
 *
 * @throws CutoverError `epoch_closed` when the epoch stands elsewhere
 */
export async function setFinal(
  connection: Connection,
  epoch: number,
  from: DecisionState,
  to: 'finalizing' | 'finalized',
): Promise<void> {
  const { rows } = await connection.query<{ state: string | null }>('SELECT cutover.set_final($1, $2, $3) AS state', [
    epoch,
    from,
    to,
  ]);
  const state = rows[0]?.state ?? 'unknown';
  if (state !== to && state !== 'finalized') throw new CutoverError('epoch_closed', { epoch, state });
}

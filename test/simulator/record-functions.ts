/**
 * One task: the functions of the record, as src/postgres/record-schema.ts defines them in SQL, one statement after the other.
 *
 * record-functions.test.ts runs the same calls on a real server and compares every answer.
 */
import type { Decision, DecisionState } from '../../src/postgres/record.js';
import { SqlError, type Database, type FenceRow, type Transaction, type Work } from './database.js';

/** A row of cutover.decision with the columns that only the functions read. */
export type DecisionRow = Decision & { readonly publication?: string | null };

export type RecordFunction = (transaction: Transaction, values: readonly unknown[]) => Work<Record<string, unknown>>;

/** The primary key of cutover.marker. */
export function markerKey(cluster: string, epoch: number, nonce: string, kind: 'seal' | 'canary'): string {
  return `${kind} ${cluster} ${epoch.toString()} ${nonce}`;
}

function* fenceForUpdate(transaction: Transaction): Work<FenceRow> {
  yield { lock: 'fence', mode: 'exclusive' };
  return transaction.fence;
}

/** UPDATE of one row of cutover.decision where its state allows it; answers whether it did. */
function* updateDecision(
  transaction: Transaction,
  epoch: number,
  allowed: (decision: Decision) => boolean,
  change: Partial<DecisionRow>,
): Work<boolean> {
  yield { lock: 'decisions', mode: 'shared' };
  const seen = transaction.decision(epoch);
  if (!seen || !allowed(seen)) return false;
  yield { lock: `decision ${epoch.toString()}`, mode: 'exclusive' };
  // READ COMMITTED: the row is looked at again once it is locked.
  const decision = transaction.decision(epoch);
  if (!decision || !allowed(decision)) return false;
  transaction.decisions.set(epoch, { ...decision, ...change });
  return true;
}

/** clock_timestamp() as jsonb writes it. */
function timeOf(database: Database): string {
  return new Date(database.scheduler.now).toISOString();
}

function closed(epoch: number, fence: FenceRow): SqlError {
  return new SqlError(
    'CUT02',
    `epoch ${epoch.toString()} was already closed here by epoch ${fence.epoch.toString()} (${fence.state})`,
  );
}

function failedOver(epoch: number): SqlError {
  return new SqlError('CUT02', `the source failed over since epoch ${epoch.toString()} began`);
}

/** A write that finds no row fires the trigger all the same, and must be refused. */
function* probeWrite(transaction: Transaction): Work<null> {
  yield { lock: 'tables', mode: 'shared' };
  if (!transaction.database.up) throw new SqlError('CUT03', 'the fence does not hold: a write was accepted');
  return null;
}

/** The published tables of the simulation: the application's one and the marker. */
const TABLES = 2;

const isIn = (states: readonly DecisionState[]) => (decision: Decision) => states.includes(decision.state);

function* begin(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [migration, attempt, nonce, floor, database, peer, source, destination, fenced] = values as [
    ...[string, string, string, number, string, string, string, string, boolean],
  ];
  const { database: server } = transaction;
  yield { lock: 'decisions', mode: 'exclusive' };
  let decision = transaction.allDecisions.find((d) => d.migration === migration && d.attempt === attempt);
  if (!decision) {
    const open = transaction.allDecisions.find(isIn(['preparing', 'sealed', 'finalizing']));
    if (open) throw new SqlError('CUT02', `epoch ${open.epoch.toString()} is still ${open.state}`);
    const { fence } = transaction;
    if (fence.state !== 'open' || server.up)
      throw new SqlError('CUT02', `this side does not serve (fence ${fence.state}, epoch ${fence.epoch.toString()})`);
    decision = {
      epoch: 1 + Math.max(floor, transaction.fence.epoch, 0, ...transaction.allDecisions.map((d) => d.epoch)),
      ...{ migration, attempt, nonce, database, peer },
      state: 'preparing',
      source: JSON.parse(source) as Decision['source'],
      destination: JSON.parse(destination) as Decision['destination'],
      ...{ seal_lsn: null, reason: null, begun_at: timeOf(server), decided_at: null },
      fenced,
    };
    transaction.decisions.set(decision.epoch, decision);
  }
  return { ...server.identity(), ...decision };
}

/** cutover.writer_in_flight: whether another transaction has the lock that whoever writes takes before it looks at the flag. */
function writerInFlight(transaction: Transaction): boolean {
  return transaction.database.locks.isHeldByAnother(transaction, 'tables');
}

/** cutover.give_up_seal: a seal that fails takes its flag down again. */
function sealGivenUp(database: Database, code: string, problem: string): SqlError {
  database.setFlag(false);
  return new SqlError(code, problem);
}

/** The flag first, then whoever got past it is waited for (decision 0018). A planted fault answers `inFlight` in another way. */
export function* seal(
  transaction: Transaction,
  values: readonly unknown[],
  inFlight: (transaction: Transaction) => boolean = writerInFlight,
): Work<Record<string, unknown>> {
  const [epoch, nonce, , publication, lockTimeoutMs] = values as [number, string, number, string, number];
  const { database } = transaction;
  transaction.lockTimeoutMs = lockTimeoutMs;
  const repeated = (fence: FenceRow): boolean =>
    fence.epoch === epoch && fence.nonce === nonce && fence.state === 'sealed';
  let { fence } = transaction;
  if (repeated(fence)) return { ...database.identity(), lsn: fence.seal_lsn, repeated: true, tables: TABLES };
  if (fence.epoch >= epoch) throw closed(epoch, fence);
  const begun = transaction.decision(epoch);
  if (begun?.nonce === nonce && begun.source.timeline !== database.timeline) throw failedOver(epoch);
  const fenced = begun?.nonce !== nonce || begun.fenced !== false;
  if (fenced && inFlight(transaction)) yield { lock: 'tables', mode: 'exclusive' };
  fence = yield* fenceForUpdate(transaction);
  if (repeated(fence)) return { ...database.identity(), lsn: fence.seal_lsn, repeated: true, tables: TABLES };
  if (fence.epoch >= epoch) throw closed(epoch, fence);
  if (fence.state !== 'open')
    throw new SqlError('CUT02', `this side does not serve (fence ${fence.state}, epoch ${fence.epoch.toString()})`);
  yield { pause: true };
  database.setFlag(true);
  let waitedMs = 0;
  while (fenced && inFlight(transaction)) {
    waitedMs += 1;
    if (waitedMs > lockTimeoutMs) throw sealGivenUp(database, '55P03', 'writers of fenced tables have not ended');
    yield { sleepMs: 1 };
  }
  yield { pause: true };
  transaction.markers.add(markerKey(database.systemIdentifier, epoch, nonce, 'seal'));
  const lsn = database.lsnText;
  const prepared = (decision: Decision): boolean => decision.state === 'preparing' && decision.nonce === nonce;
  if (!(yield* updateDecision(transaction, epoch, prepared, { state: 'sealed', seal_lsn: lsn, publication })))
    throw sealGivenUp(database, 'CUT02', `epoch ${epoch.toString()} is not being prepared`);
  yield { pause: true };
  transaction.fenceRow = { epoch, state: 'sealed', nonce, seal_lsn: lsn };
  return { ...database.identity(), lsn, repeated: false, tables: TABLES };
}

function* commit(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, nonce] = values as [number, string];
  const { database } = transaction;
  const fence = yield* fenceForUpdate(transaction);
  yield { lock: `decision ${epoch.toString()}`, mode: 'exclusive' };
  let decision = transaction.decision(epoch);
  if (decision?.nonce !== nonce) throw new SqlError('CUT02', `epoch ${epoch.toString()} is unknown here`);
  if (decision.state === 'sealed') {
    if (fence.epoch !== epoch || fence.state !== 'sealed' || !database.up)
      throw new SqlError(
        'CUT02',
        `the seal of epoch ${epoch.toString()} does not stand (fence ${fence.state}, epoch ${fence.epoch.toString()})`,
      );
    if (decision.source.timeline !== database.timeline) throw failedOver(epoch);
    if (decision.fenced !== false) yield* probeWrite(transaction);
    yield { pause: true };
    decision = { ...decision, state: 'committed', decided_at: timeOf(database) };
    transaction.decisions.set(epoch, decision);
  }
  return { ...database.identity(), ...decision };
}

function* abort(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, reason] = values as [number, string];
  const { database } = transaction;
  const decided_at = timeOf(database);
  yield* updateDecision(transaction, epoch, isIn(['preparing', 'sealed']), { state: 'aborted', reason, decided_at });
  yield { pause: true };
  return { ...database.identity(), ...(transaction.decision(epoch) ?? { state: 'unknown' }) };
}

function* release(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch] = values as [number];
  let fence = yield* fenceForUpdate(transaction);
  if (fence.epoch <= epoch && (fence.state === 'open' || (fence.state === 'sealed' && fence.epoch === epoch))) {
    const decision = transaction.decision(epoch);
    if (decision && decision.state !== 'aborted')
      throw new SqlError('CUT02', `epoch ${epoch.toString()} is not aborted`);
    yield { pause: true };
    fence = { ...fence, epoch, state: 'open' };
    transaction.fenceRow = fence;
  }
  return { ...transaction.database.identity(), ...fence };
}

function* lower(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch] = values as [number];
  const { database } = transaction;
  const fence = yield* fenceForUpdate(transaction);
  yield { pause: true };
  if (fence.epoch >= epoch && fence.state === 'open') database.setFlag(false);
  return { ...database.identity(), ...fence, up: database.up };
}

function* ready(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, nonce, , , fenced] = values as [number, string, number, string, boolean];
  const { database } = transaction;
  let fence = yield* fenceForUpdate(transaction);
  if (!(fence.epoch === epoch && fence.nonce === nonce && (fence.state === 'ready' || fence.state === 'open'))) {
    if (fence.epoch >= epoch) throw closed(epoch, fence);
    if (fence.state === 'open' || !database.up)
      throw new SqlError(
        'CUT03',
        `the destination accepts writes already (fence ${fence.state}, epoch ${fence.epoch.toString()})`,
      );
    if (fenced) yield* probeWrite(transaction);
    yield { pause: true };
    fence = { ...fence, epoch, state: 'ready', nonce };
    transaction.fenceRow = fence;
  }
  const key = markerKey(database.systemIdentifier, epoch, nonce, 'canary');
  if (!database.markers.has(key)) transaction.markers.add(key);
  return { ...database.identity(), ...fence, lsn: database.lsnText };
}

function* open(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const decision = JSON.parse(values[0] as string) as Decision;
  if (!isIn(['committed', 'finalizing', 'finalized'])(decision))
    throw new SqlError('CUT02', `epoch ${decision.epoch.toString()} is ${decision.state}, not committed`);
  let fence = yield* fenceForUpdate(transaction);
  if (fence.epoch === decision.epoch && fence.state === 'ready') {
    const { database } = transaction;
    const mark = markerKey(decision.source.systemIdentifier, decision.epoch, decision.nonce, 'seal');
    if (decision.destination.timeline !== database.timeline && !database.markers.has(mark))
      throw new SqlError('CUT02', 'the destination failed over to a server that lacks the last writes');
    yield { lock: 'decisions', mode: 'shared' };
    if (!transaction.decision(decision.epoch)) transaction.decisions.set(decision.epoch, columnsOf(decision));
    fence = { ...fence, state: 'open' };
    transaction.fenceRow = fence;
  }
  return { ...transaction.database.identity(), ...fence };
}

/** jsonb_populate_record: the table's columns, nothing else. */
function columnsOf(given: Decision): Decision {
  const { epoch, migration, attempt, nonce, state, database, peer, source, destination } = given;
  const { seal_lsn, reason, begun_at, decided_at, fenced = null } = given;
  return {
    ...{ epoch, migration, attempt, nonce, state, database, peer, source, destination },
    ...{ seal_lsn, reason, begun_at, decided_at, fenced },
  };
}

function* refuse(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, nonce] = values as [number, string | null];
  let fence = yield* fenceForUpdate(transaction);
  const another = fence.epoch === epoch && fence.state === 'ready' && fence.nonce !== (nonce ?? fence.nonce);
  if (fence.state !== 'open' && fence.epoch <= epoch && !another) {
    fence = { ...fence, epoch, state: 'refused' };
    transaction.fenceRow = fence;
  }
  return { ...transaction.database.identity(), ...fence };
}

function* keep(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const { database } = transaction;
  const given = values[0] === null ? null : columnsOf(JSON.parse(values[0] as string) as Decision);
  let fence = yield* fenceForUpdate(transaction);
  let kept: string | null = null;
  if (
    given !== null &&
    isIn(['committed', 'finalizing', 'finalized'])(given) &&
    given.source.systemIdentifier === database.systemIdentifier
  ) {
    const known = transaction.decision(given.epoch);
    const { state, decided_at, reason } = given;
    if (!known || (known.nonce === given.nonce && isIn(['preparing', 'sealed'])(known))) {
      transaction.decisions.set(given.epoch, known ? { ...known, state, decided_at, reason } : given);
      kept = 'told what was decided';
    }
    if (fence.epoch < given.epoch) {
      fence = { epoch: given.epoch, state: 'sealed', nonce: given.nonce, seal_lsn: given.seal_lsn };
      transaction.fenceRow = fence;
      kept = 'sealed again';
    }
  }
  if (fence.state !== 'open' && !database.up) {
    database.setFlag(true);
    kept ??= 'raised again';
  }
  return { ...database.identity(), ...fence, kept };
}

function* advanceSequences(transaction: Transaction, values: readonly unknown[]): Work<Record<string, unknown>> {
  const [epoch, , [number = '0']] = values as [number, readonly string[], readonly string[]];
  const { database } = transaction;
  const fence = yield* fenceForUpdate(transaction);
  if (fence.state === 'open' || fence.epoch > epoch)
    return { ...database.identity(), advanced: 0, skipped: `fence ${fence.state}` };
  const wanted = Number(number);
  const advanced = wanted > database.sequence ? 1 : 0;
  if (advanced > 0) database.sequence = wanted;
  return { ...database.identity(), advanced };
}

/** By their SQL names. A planted fault replaces one of them. */
export const RECORD_FUNCTIONS: Readonly<Record<string, RecordFunction>> = {
  'cutover.begin': begin,
  'cutover.seal': seal,
  'cutover.commit': commit,
  'cutover.abort': abort,
  'cutover.release': release,
  'cutover.lower': lower,
  'cutover.ready': ready,
  'cutover.open': open,
  'cutover.refuse': refuse,
  'cutover.keep': keep,
  'cutover.advance_sequences': advanceSequences,
};

/**
 * One task: bring an epoch to its end from the record alone, whoever asks: a node whose lease ran out, the engine that
 * gives up, a node that starts.
 *
 * Undecided → try the abort; act on what the record then says, never on the wish (docs/protocol.md, section 4).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { sameSide, shardsOf, sideOf, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Connection } from '../postgres/connection.js';
import type { Connections } from '../postgres/connections.js';
import {
  abortEpoch,
  isCommitted,
  openDestination,
  readRecord,
  refuseDestination,
  releaseShard,
  releaseSource,
  type Decision,
  type RecordState,
} from '../postgres/record.js';
import type { Directory } from './directory.js';

export interface Epoch {
  readonly database: string;
  readonly epoch: number;
  readonly source: Side;
  readonly destination: Side;
}

export interface Resolution {
  readonly outcome: 'committed' | 'aborted';
  readonly serving: Side;
  readonly reason: string | null;
}

/**
 * Decides `epoch` (an abort unless it is committed) and makes the decided side accept writes. May be called again.
 *
 * @throws CutoverError `record_unreachable` when nobody can say what was decided: the caller stays closed
 */
export async function resolveEpoch(
  directory: Directory,
  connections: Connections,
  epoch: Epoch,
  reason: string,
): Promise<Resolution> {
  let decision: Decision | { state: 'unknown' };
  try {
    const record = await connections.get(await directory.endpointOf(epoch.source), 'record');
    if (
      (await knowsCommit(directory, connections, epoch)) ||
      (await shutDoorAfterFailover(directory, connections, epoch))
    )
      return await byDestinationAlone(directory, connections, epoch, 'the source has lost the commit');
    decision = await abortEpoch(record, epoch.source, epoch.epoch, reason);
  } catch (error) {
    return byDestinationAlone(directory, connections, epoch, messageOf(error));
  }
  if (decision.state !== 'unknown' && isCommitted(decision.state)) {
    await openShards(directory, connections, decision);
    return { outcome: 'committed', serving: sideOf(decision.destination), reason: null };
  }
  // What the record says of the shards counts: whoever asks may have heard of less.
  const { source, destination } = decision.state === 'unknown' ? epoch : decision;
  const at = async (shard: Side): Promise<Connection> => connections.get(await directory.endpointOf(shard), 'record');
  await releaseSource(await at(source), source, epoch.epoch);
  // A shard that does not answer is released when it next refuses a write, and is told then that this side serves.
  await Promise.allSettled(
    (source.otherShards ?? []).map(async (shard) => {
      const release = decision.state === 'unknown' ? releaseSource : releaseShard;
      await release(await at(shard), shard, epoch.epoch);
    }),
  );
  const nonce = decision.state === 'unknown' ? null : decision.nonce;
  // Defence in depth, not a condition: the tombstone on the source already makes a late commit impossible.
  await Promise.allSettled(
    shardsOf(destination).map(async (shard) => refuseDestination(await at(shard), shard, epoch.epoch, nonce)),
  );
  return {
    outcome: 'aborted',
    serving: sideOf(source),
    reason: decision.state === 'unknown' ? reason : decision.reason,
  };
}

/**
 * Every shard of a committed epoch's destination accepts writes. Shard 0 must; another one that does not answer opens when it first
 * refuses a write, and one that must not open fails this.
 */
async function openShards(directory: Directory, connections: Connections, decision: Decision): Promise<void> {
  const open = async (shard: Side): Promise<void> => {
    await openDestination(await connections.get(await directory.endpointOf(shard), 'record'), decision, shard);
  };
  await open(decision.destination);
  const opened = await Promise.allSettled((decision.destination.otherShards ?? []).map(open));
  for (const outcome of opened) if (outcome.status === 'rejected' && saidNo(outcome.reason)) throw outcome.reason;
}

/** A server has answered, and not that it is going away (PostgreSQL documentation, appendix A). */
function saidNo(error: unknown): boolean {
  if (error instanceof CutoverError) return error.code === 'destination_shut' || error.code === 'wrong_server';
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code);
}

/** A destination that does not answer must not hold up the abort: its door stays shut without a commit. */
const COPY_TIMEOUT_MS = 300;

/** Whether the destination has the copy of a commit, by its source before it was lost or by a person (by-hand.ts). */
async function knowsCommit(directory: Directory, connections: Connections, epoch: Epoch): Promise<boolean> {
  const look = async (): Promise<boolean> => {
    const destination = await connections.get(await directory.endpointOf(epoch.destination), 'record');
    const copy = (await readRecord(destination))?.decisions.find((d) => d.epoch === epoch.epoch);
    return copy !== undefined && isCommitted(copy.state);
  };
  const abandon = new AbortController();
  const late = delay(COPY_TIMEOUT_MS, false, { signal: abandon.signal }).catch(() => false);
  try {
    return await Promise.race([look().catch(() => false), late]);
  } finally {
    abandon.abort();
  }
}

/**
 * A source that failed over may have lost the commit, or the whole epoch: none begins a pause without having begun. Its
 * destination's door then decides: refused first, and if it is open already, the decision *is* committed.
 *
 * @returns whether the destination is open for this epoch or a later one
 */
async function shutDoorAfterFailover(directory: Directory, connections: Connections, epoch: Epoch): Promise<boolean> {
  const source = await connections.get(await directory.endpointOf(epoch.source), 'record');
  const state = await readRecord(source);
  const decision = state?.decisions.find((d) => d.epoch === epoch.epoch);
  if (!state || (decision && (isCommitted(decision.state) || decision.source.timeline === state.identity.timeline)))
    return false;
  const destination = await connections.get(await directory.endpointOf(epoch.destination), 'record');
  const fence = await refuseDestination(destination, epoch.destination, epoch.epoch, decision?.nonce ?? null);
  return fence.state === 'open' && fence.epoch >= epoch.epoch;
}

/** The source cannot be asked: a destination that reads open(epoch) proves the commit, anything else proves nothing. */
async function byDestinationAlone(
  directory: Directory,
  connections: Connections,
  epoch: Epoch,
  problem: string,
): Promise<Resolution> {
  let state: RecordState | null = null;
  try {
    const destination = await connections.get(await directory.endpointOf(epoch.destination), 'record');
    state = await readRecord(destination);
  } catch (error) {
    throw new CutoverError('record_unreachable', {
      database: epoch.database,
      problem: `${problem}; ${messageOf(error)}`,
    });
  }
  const opened = state?.decisions.find((d) => d.epoch === epoch.epoch);
  if (state && opened && isCommitted(opened.state) && sameSide(state.identity, epoch.destination)) {
    await openShards(directory, connections, opened);
    return { outcome: 'committed', serving: sideOf(opened.destination), reason: null };
  }
  throw new CutoverError('record_unreachable', { database: epoch.database, problem });
}

/** What the records of the two sides of a pair say together. */
export interface Serving {
  readonly database: string;
  readonly peer: string;
  readonly epoch: number;
  readonly serving: Side;
  readonly other: Side;
  /** an epoch somebody began and nobody decided */
  readonly open: Decision | null;
  /** the last decision, whose side still refuses writes: who decided died before acting on it */
  readonly unfinished: Decision | null;
}

const decided = (decision: Decision): boolean => decision.state === 'aborted' || isCommitted(decision.state);

/** Folds the decisions of both sides: the highest decided epoch says who serves. Null when no epoch ever began. */
export function servingOf(records: readonly RecordState[]): Serving | null {
  const byEpoch = new Map<number, Decision>();
  for (const decision of records.flatMap((r) => r.decisions)) {
    const known = byEpoch.get(decision.epoch);
    // A side may know an epoch's outcome that the other has not learnt, or lost in a fail-over.
    if (!known || (!decided(known) && decided(decision))) byEpoch.set(decision.epoch, decision);
  }
  const decisions = [...byEpoch.values()].sort((a, b) => b.epoch - a.epoch);
  const newest = decisions[0];
  if (!newest) return null;
  const last = decisions.find(decided);
  const moved = last !== undefined && isCommitted(last.state);
  const base = last ?? newest;
  const serving = moved ? base.destination : base.source;
  const barred = records.some(
    (r) => sameSide(r.identity, serving) && [r, ...(r.otherShards ?? [])].some(({ fence }) => fence.up),
  );
  return {
    database: newest.database,
    peer: newest.peer,
    epoch: last?.epoch ?? 0,
    serving: sideOf(serving),
    other: sideOf(moved ? base.source : base.destination),
    open: decided(newest) ? null : newest,
    unfinished: decided(newest) && barred ? newest : null,
  };
}

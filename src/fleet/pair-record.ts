/** One task: read what the records of both sides of a pair say together, and keep the fence of the side that does not serve up. */
import { sameSide, shardsOf, type Side } from '../cutover/side.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Connections } from '../postgres/connections.js';
import { isCommitted, keepFence, readRecord, type Decision, type RecordState } from '../postgres/record.js';
import { contradictionIn } from './contradictions.js';
import type { Directory, Place } from './directory.js';
import { servingOf, type Serving } from './resolution.js';

/** The layout that brought the keeper. */
const KEEPER_SINCE = 2;

export interface KeptLog {
  warn(details: object, message: string): void;
}

export class PairRecord {
  readonly #directory: Directory;
  readonly #connections: Connections;
  readonly #log: KeptLog;

  constructor(directory: Directory, connections: Connections, log: KeptLog) {
    this.#directory = directory;
    this.#connections = connections;
    this.#log = log;
  }

  /**
   * The reachable ones of the pair that `name` belongs to. A dead peer must not hold a healthy database shut.
   *
   * @param knownPeer the other side's name, where it is known without the record
   * @throws CutoverError `record_newer` | `record_contradictory`: what is there must not be acted on
   */
  async read(
    name: string,
    knownPeer: string | null,
  ): Promise<{ records: readonly RecordState[]; serving: Serving | null }> {
    const own = await this.#look(name);
    const first = own ? servingOf([own]) : null;
    const sides = first ? [first.serving, first.other] : [];
    const records: RecordState[] = own ? [own] : [];
    const peers = await Promise.all(sides.map((side) => this.#directory.nameOf(side).catch(() => null)));
    for (const peer of new Set([...peers, knownPeer]))
      if (peer !== null && peer !== name) {
        const other = await this.#look(peer);
        if (other) records.push(other);
      }
    const contradiction = contradictionIn(records);
    if (contradiction !== null)
      throw new CutoverError('record_contradictory', { database: name, problem: contradiction });
    for (const record of records)
      for (const shard of [record, ...(record.otherShards ?? [])]) await this.#keep(shard, records);
    return { records, serving: servingOf(records) };
  }

  async #look(name: string): Promise<RecordState | null> {
    try {
      const record = await this.#readShard({ name, shard: 0 });
      const others = this.#directory.places.filter((place) => place.name === name && place.shard > 0);
      if (record === null || others.length === 0) return record;
      const read = await Promise.allSettled(others.map((place) => this.#readShard(place)));
      const otherShards = read.flatMap((one) => (one.status === 'fulfilled' && one.value ? [one.value] : []));
      return { ...record, otherShards };
    } catch (error) {
      if (error instanceof CutoverError && error.code === 'record_newer') throw error;
      return null;
    }
  }

  async #readShard({ name, shard }: Place): Promise<RecordState | null> {
    return readRecord(await this.#connections.get(this.#directory.endpoint(name, shard), 'watch'));
  }

  /** Raises what must be up after a crash, a promotion, or a person's mistake. */
  async #keep(record: RecordState, records: readonly RecordState[]): Promise<void> {
    const side: Side = record.identity;
    const lost = lostDecision(record, records);
    const down = record.fence.state !== 'open' && !record.fence.up;
    if (record.version < KEEPER_SINCE || (!down && lost === null)) return;
    try {
      const connection = await this.#connections.get(await this.#directory.endpointOf(side), 'watch');
      const kept = await keepFence(connection, side, lost);
      if (kept !== null)
        this.#log.warn({ side: side.systemIdentifier, kept }, 'the fence of a side that does not serve was down');
    } catch (error) {
      this.#log.warn({ side: side.systemIdentifier, problem: messageOf(error) }, 'the fence could not be kept up');
    }
  }
}

/** The commit that moved the traffic away from this side, where this side does not know of it: it failed over. */
function lostDecision(record: RecordState, records: readonly RecordState[]): Decision | null {
  const decided = records.flatMap((r) => r.decisions).filter((d) => d.state === 'aborted' || isCommitted(d.state));
  const last = decided.reduce<Decision | null>((a, b) => (a !== null && a.epoch >= b.epoch ? a : b), null);
  if (last === null || !isCommitted(last.state)) return null;
  if (!shardsOf(last.source).some((shard) => sameSide(shard, record.identity))) return null;
  const own = record.decisions.find((d) => d.epoch === last.epoch);
  // Decisions are shard 0's; of the others the fence alone tells.
  const known = !sameSide(last.source, record.identity) || (own !== undefined && isCommitted(own.state));
  return known && record.fence.epoch >= last.epoch ? null : last;
}
